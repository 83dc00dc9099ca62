"""A member's rules for calls that are relayed to it (PROTOCOL.md, section 8.5).

RELAYs are unwrapped and what came in parts is put together; answers are wrapped, in parts where they are large. A route
is kept for as long as it has calls under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import RemoteProtocolError
from ..wire import codec
from ..wire.messages import Error, Frame, Kind
from ..wire.parts import Parts
from ..wire.relays import BEGINNINGS, BadPart, call_of, final
from ..wire.zmtp import Frames
from .effects import Forward

__all__ = ["Relayed", "Request", "Route"]


class Route:
    """One client's connection to the coordinator, seen from here.

    Attributes:
        name: the fields of a RELAY for it.
        parts: what is under way in parts.
        calls: under way.
        caller: whatever its owner knows it by.
    """

    __slots__ = ("caller", "calls", "name", "parts")

    def __init__(self, name: bytes, parts: Parts) -> None:
        self.name = name
        self.parts = parts
        self.calls: set[int] = set()
        self.caller: Any = None


class Request(NamedTuple):
    """A message of a client, to be answered over its route."""

    route: Route
    frames: Frames


class Relayed:
    """The calls that are relayed to one member.

    Args:
        run_id: of the messages.
        message_bytes_max: the largest request put together. Twice as much may be under way over one route.

    Attributes:
        run_id: as given.
    """

    def __init__(self, run_id: bytes, message_bytes_max: int) -> None:
        self.run_id = run_id
        self._limit = message_bytes_max
        self._relay = codec.preamble(Kind.RELAY, run_id)
        self._routes: dict[bytes, Route] = {}

    @property
    def waiting(self) -> bool:
        """Whether answers wait for credit."""
        return any(route.parts.waiting for route in list(self._routes.values()))  # others may ask, too

    def route(self, frames: list[bytes]) -> Route | None:
        """The route of a RELAY, if something is under way over it."""
        return self._routes.get(frames[1]) if len(frames) > 1 else None

    def check(self) -> None:
        """Asserts every invariant."""
        for route in self._routes.values():
            assert route.calls or not route.parts.idle, "a route without calls is forgotten"
            route.parts.check()

    def receive(self, frames: list[bytes]) -> tuple[Request | None, list[Forward]] | None:
        """A message has come from the coordinator. Returns a client's message, if it holds a whole one, and what is to
        be sent now. None: it is no RELAY."""
        if frames[0] != self._relay:
            return None
        if len(frames) < 4:
            return None, []
        name, inner = frames[1], list[Frame](frames[2:])
        route = self._routes.get(name)
        if route is None:
            route = Route(name, Parts(self.run_id, self._limit, 2 * self._limit))
        try:
            whole, out = route.parts.take(inner)
            if whole is not None:
                self._note(route, whole)
        except BadPart as error:  # nothing has run
            whole, out = None, [codec.encode(Error(error.call_id, error.code, str(error)), self.run_id)]
        except RemoteProtocolError:
            whole, out = None, ()
        self._keep(route)
        request = None if whole is None else Request(route, whole)
        return request, self._wrapped(name, out) if out else []

    def clear(self) -> list[Any]:
        """The connection has ended, and all that came over it is over. Returns the callers that were known."""
        routes, self._routes = self._routes, {}
        return [route.caller for route in routes.values() if route.caller is not None]

    def answer(self, route: Route, frames: Sequence[Frame]) -> list[Forward]:
        """The server has something to say. What is about a call that is over goes nowhere."""
        kind = frames[0][4]
        if kind == Kind.REFUSE:  # about no call
            return self._wrapped(route.name, [frames])
        call_id = call_of(frames)
        if call_id not in route.calls:
            return []
        out = self._wrapped(route.name, route.parts.send(frames))
        if final(frames[0]):
            route.calls.discard(call_id)
            self._keep(route)
        return out

    def _note(self, route: Route, frames: Frames) -> None:
        """Keeps account of the calls of a route."""
        if len(frames) < 2 or len(frames[0]) != codec.PREAMBLE_BYTES:
            return
        kind = frames[0][4]
        if kind in BEGINNINGS:
            route.calls.add(call_of(frames))
        elif kind == Kind.CANCEL:
            route.calls.discard(call_of(frames))

    def _keep(self, route: Route) -> None:
        """Keeps a route for as long as something is under way over it."""
        if route.calls or not route.parts.idle:
            self._routes[route.name] = route
        else:
            self._routes.pop(route.name, None)

    def _wrapped(self, name: bytes, messages: Iterable[Sequence[Frame]]) -> list[Forward]:
        return [Forward(None, [self._relay, name, *message]) for message in messages]
