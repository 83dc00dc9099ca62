"""A member's rules: join, keep the heartbeat, hear the shutdown, leave (PROTOCOL.md, section 8).

The states and what may happen in each are the table ``TRANSITIONS``; PROTOCOL.md shows the same table.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from ..wire.codes import Code
from ..wire.messages import Goodbye, Heartbeat, Hello, Message, Refuse, Shutdown, Welcome
from .effects import Effect, Ended, Send, ShutdownAsked, Welcomed
from .lease import oversleep

__all__ = ["TRANSITIONS", "Event", "Session", "SessionState"]

HELLO_INTERVAL = 1.0  # seconds between two HELLOs that nobody answers
OVERSLEEP_TOLERANCE = 0.5
FINAL_REFUSALS = frozenset(
    {
        Code.STALE,
        Code.BAD_TOKEN,
        Code.VERSION,
        Code.CLOSED,
        Code.JOB_FAILED,
        Code.WRONG_RUN,
        Code.INVALID_ARGUMENT,
    }
)


class SessionState(Enum):
    """NEW before ``start``, JOINING until the first WELCOME, ..., ENDED for ever."""

    NEW = "new"
    JOINING = "joining"
    MEMBER = "member"
    LEAVING = "leaving"
    ENDED = "ended"


class Event(Enum):
    """What can happen to a session."""

    START = "start"
    WELCOME = "WELCOME"
    HEARTBEAT = "HEARTBEAT"
    NOT_MEMBER = "REFUSE NOT_MEMBER"
    REFUSED = "REFUSE, final"
    SHUTDOWN = "SHUTDOWN"
    LEAVE = "leave"
    SILENCE = "no word for leave_timeout"


_S, _E = SessionState, Event

# What is not listed changes nothing.
TRANSITIONS: dict[SessionState, dict[Event, SessionState]] = {
    _S.NEW: {_E.START: _S.JOINING, _E.LEAVE: _S.ENDED},
    _S.JOINING: {
        _E.WELCOME: _S.MEMBER,
        _E.REFUSED: _S.ENDED,
        _E.SHUTDOWN: _S.LEAVING,
        _E.LEAVE: _S.ENDED,
        _E.SILENCE: _S.ENDED,
    },
    _S.MEMBER: {
        _E.NOT_MEMBER: _S.JOINING,
        _E.REFUSED: _S.ENDED,
        _E.SHUTDOWN: _S.LEAVING,
        _E.LEAVE: _S.ENDED,
        _E.SILENCE: _S.ENDED,
    },
    _S.LEAVING: {_E.REFUSED: _S.ENDED, _E.LEAVE: _S.ENDED, _E.SILENCE: _S.ENDED},
    _S.ENDED: {},
}


class Session:
    """One member's side of its life with the coordinator.

    Args:
        hello: who we are; sent again whenever the coordinator does not know us.
        leave_timeout: seconds without a word from the coordinator after which the server ends by itself.
    """

    def __init__(self, hello: Hello, leave_timeout: float) -> None:
        self.hello = hello
        self.state = SessionState.NEW
        self._leave_timeout = leave_timeout
        self._interval = HELLO_INTERVAL
        self._heard = 0.0  # last word from the coordinator
        self._next = 0.0  # next HELLO or HEARTBEAT
        self._sequence = 0

    @property
    def deadline(self) -> float | None:
        """When ``tick`` is wanted next."""
        if self.state in (SessionState.NEW, SessionState.ENDED):
            return None
        return min(self._next, self._heard + self._leave_timeout)

    def check(self) -> None:
        """Asserts every invariant."""
        assert self.state in TRANSITIONS
        assert (self.deadline is None) == (self.state in (SessionState.NEW, SessionState.ENDED))

    # ------------------------------------------------------------------------------------- what can happen

    def start(self, now: float) -> list[Effect]:
        """Our side wants to join."""
        if not self._step(Event.START):
            return []
        self._heard = now
        return self._say_hello(now)

    def leave(self, code: Code, text: str = "", detail: str = "") -> list[Effect]:
        """Our side ends: GOODBYE, whatever the state. Twice is harmless."""
        if not self._step(Event.LEAVE):
            return []
        hello = self.hello
        goodbye = Goodbye(
            hello.rank, hello.incarnation, hello.attempt, hello.token, code, text[:4000], detail, hello.host
        )
        return [Send(None, goodbye), Ended(Code.OK, text)]

    def receive(self, message: Message, sender: Any, now: float) -> list[Effect]:
        """A message arrived from the coordinator; ``sender`` is always it."""
        if self.state is SessionState.ENDED:
            return []
        self._heard = now
        if isinstance(message, Welcome):
            return self._welcome(message, now)
        if isinstance(message, Shutdown):
            asked = ShutdownAsked(message.reason, message.grace_ms / 1000)
            return [asked] if self._step(Event.SHUTDOWN) else []
        if isinstance(message, Refuse):
            return self._refused(message, now)
        return []  # the echo of a heartbeat: that it was heard is all it says

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: a HELLO, a heartbeat, or the end of our patience."""
        if self.deadline is None or now < self.deadline:
            return []
        # a process that was stopped has not heard anybody, which is not the coordinator's silence
        self._heard = min(self._heard + oversleep(self.deadline, now, OVERSLEEP_TOLERANCE), now)
        if now - self._heard >= self._leave_timeout:
            self._step(Event.SILENCE)
            return [Ended(Code.UNAVAILABLE, f"no word from the coordinator for {self._leave_timeout:g} s")]
        if now < self._next:
            return []
        return self._say_hello(now) if self.state is SessionState.JOINING else self._beat(now)

    # --------------------------------------------------------------------------------------------- helpers

    def _step(self, event: Event) -> bool:
        """Follows the table; False where it has no such row."""
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            return False
        self.state = following
        return True

    def _welcome(self, welcome: Welcome, now: float) -> list[Effect]:
        if not self._step(Event.WELCOME):
            return []
        self._interval = max(welcome.heartbeat_ms / 1000, 0.01)
        self._next = now + self._interval
        return [Welcomed(welcome.relay_port)]

    def _refused(self, refuse: Refuse, now: float) -> list[Effect]:
        code = Code.of(refuse.code)
        if code is Code.NOT_MEMBER:
            return self._say_hello(now) if self._step(Event.NOT_MEMBER) else []
        if code in FINAL_REFUSALS and self._step(Event.REFUSED):
            return [Ended(code, refuse.text)]
        return []

    def _say_hello(self, now: float) -> list[Effect]:
        self._next = now + HELLO_INTERVAL
        return [Send(None, self.hello)]

    def _beat(self, now: float) -> list[Effect]:
        self._next = now + self._interval
        self._sequence += 1
        return [Send(None, Heartbeat(self.hello.rank, self.hello.incarnation, self._sequence))]
