"""The member's side of relayed calls: between the thread of its control plane and the one that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.effects import Effect, Forward
from ..core.relayed import Relayed, Route
from ..wire import codec
from ..wire.codes import Code
from ..wire.messages import Error, Frame, Kind
from ..wire.relays import call_of
from ..wire.zmtp import Frames
from .connection import Caller

__all__ = ["RelayedCaller", "RelayedCalls"]

BACKLOG_BYTES = 1 << 20  # octets that wait for a client's credit, from which on nothing more is run for it

Post = Callable[[Callable[[float], list[Effect]]], None]


class RelayedCaller(Caller):
    """A client whose calls are relayed; subclasses send."""

    __slots__ = ("_relayed", "_route", "_waited_for")

    def __init__(self, relayed: Relayed, route: Route) -> None:
        self._relayed = relayed
        self._route = route
        self._waited_for = False

    @property
    def congested(self) -> bool:
        """Whether so much waits for this caller that nothing more is to be made for it now."""
        if self._route.parts.waiting < BACKLOG_BYTES:
            return False
        self._waited_for = True
        return self._route.parts.waiting >= BACKLOG_BYTES  # once more: whoever relieves it may have looked meanwhile

    def relieved(self) -> bool:
        """Whether somebody has found this caller congested, and it is no more. In the thread of what it comes over."""
        if not self._waited_for or self._route.parts.waiting >= BACKLOG_BYTES:
            return False
        self._waited_for = False
        return True

    def hold(self, held: bool) -> None:
        """The coordinator bounds what comes by itself."""

    def refuse(self, frames: Frames, code: Code, text: str) -> None:
        """Answers a call that nothing here can answer."""
        if frames[0][4] != Kind.CANCEL:
            self.send(codec.encode(Error(call_of(frames), code, text), self._relayed.run_id))


class ControlCaller(RelayedCaller):
    """A client whose calls come over the control plane."""

    __slots__ = ("_post",)

    def __init__(self, relayed: Relayed, route: Route, post: Post) -> None:
        super().__init__(relayed, route)
        self._post = post

    def send(self, frames: Sequence[Frame]) -> None:
        relayed, route = self._relayed, self._route
        self._post(lambda now: list(relayed.answer(route, frames)))


Deliver = Callable[["RelayedCaller", Frames], None]


class RelayedCalls:
    """What a member's loop does with RELAYs.

    Args:
        relayed: the rules.
        deliver: given a caller and a message, in the loop's thread; must not block.
        relieved: called there when a caller that was found congested is so no more.
        post: has a command run in the loop's thread.
    """

    def __init__(self, relayed: Relayed, deliver: Deliver, relieved: Callable[[], None], post: Post) -> None:
        self._relayed = relayed
        self._deliver = deliver
        self._relieved = relieved
        self._post = post

    @property
    def deadline(self) -> float | None:
        return None

    @property
    def waiting(self) -> bool:
        """Whether parts of answers have yet to leave."""
        return self._relayed.waiting

    def receive(self, sender: bytes, frames: list[bytes], now: float) -> list[Forward] | None:
        taken = self._relayed.receive(frames)
        if taken is None:
            return None
        request, out = taken
        route = self._relayed.route(frames)
        if route is not None and route.caller is not None and route.caller.relieved():
            self._relieved()
        if request is not None:
            self._deliver(self._caller(request.route), request.frames)
        return out

    def tick(self, now: float) -> list[Forward]:
        return []

    def unreachable(self, to: bytes, frames: Sequence[Frame]) -> list[Forward]:
        return []  # a DEALER has one other side, and waits for it

    def full(self, to: bytes, frames: Sequence[Frame], now: float) -> list[Forward]:
        return []

    def _caller(self, route: Route) -> RelayedCaller:
        """The same caller for as long as the route has calls: servers know callers by identity."""
        caller: RelayedCaller | None = route.caller
        if caller is None:
            caller = route.caller = ControlCaller(self._relayed, route, self._post)
        return caller
