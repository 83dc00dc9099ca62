"""A server's rules: which requests it admits, and what an outcome becomes on the wire.

The request has been read from its frames, the reply is framed elsewhere; here is only what is decided in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..wire.codec import Fields
from ..wire.codes import Code
from ..wire.messages import DETAIL_CHARS_MAX, METHOD_CHARS_MAX, TEXT_CHARS_MAX, Error

__all__ = ["RESERVED_PREFIX", "Dispatch", "Handler", "expired", "handler_error", "shorten"]

Handler = Callable[..., Any]
RESERVED_PREFIX = "sps."  # of the names of methods that every server has


class Dispatch:
    """What one incarnation of one partition answers.

    Args:
        rank: the partition served.
        incarnation: this life of its server.
        handlers: the methods that return one value, by name.
        streams: those that yield items.
    """

    __slots__ = ("handlers", "incarnation", "leaving", "rank", "streams")

    def __init__(
        self, rank: int, incarnation: int, handlers: Mapping[str, Handler], streams: Mapping[str, Handler] | None = None
    ) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.handlers = dict(handlers)
        self.streams = dict(streams or {})
        self.leaving = False

    def admit(self, fields: Fields, received: float, now: float, stream: bool = False) -> Handler | Error:
        """The handler that is to run, or the ERROR to send. Every refusal here is definite: nothing has run.

        Args:
            fields: of the message.
            received: when it was read.
            now: the time.
            stream: whether it asks for items rather than for one value.
        """
        call_id, method, remaining_ms, rank, incarnation = fields
        if rank != self.rank or incarnation != self.incarnation:
            return self._wrong_member(call_id, rank, incarnation)
        if self.leaving:
            return Error(call_id, Code.UNAVAILABLE, f"partition {self.rank} is shutting down")
        handler = (self.streams if stream else self.handlers).get(method)
        if handler is None:
            return self._no_method(call_id, method)
        if (now - received) * 1000 > remaining_ms:
            return expired(call_id, received, now, remaining_ms)
        return handler

    def _no_method(self, call_id: int, method: str) -> Error:
        if method in self.streams:
            text = f"{method} yields a stream of items: call it with stream()"
            return Error(call_id, Code.INVALID_ARGUMENT, shorten(text, TEXT_CHARS_MAX))
        if method in self.handlers:
            text = f"{method} returns one value and no stream: call it with call()"
            return Error(call_id, Code.INVALID_ARGUMENT, shorten(text, TEXT_CHARS_MAX))
        names = [*self.handlers, *self.streams]
        known = ", ".join(sorted(name for name in names if not name.startswith(RESERVED_PREFIX))) or "none"
        text = f"no such method; there are: {known} (those marked @method)"
        return Error(call_id, Code.UNIMPLEMENTED, shorten(text, TEXT_CHARS_MAX))

    def _wrong_member(self, call_id: int, rank: int, incarnation: int) -> Error:
        text = (
            f"this is incarnation {self.incarnation} of partition {self.rank}, "
            f"not incarnation {incarnation} of partition {rank}"
        )
        return Error(call_id, Code.WRONG_MEMBER, text)


def expired(call_id: int, received: float, now: float, remaining_ms: int) -> Error:
    """The ERROR for a call that waited too long for its turn."""
    waited = (now - received) * 1000
    return Error(call_id, Code.TIMEOUT, f"it waited {waited:.0f} ms, {remaining_ms} ms were allowed; not run")


def handler_error(call_id: int, name: str, message: str, traceback: str) -> Error:
    """The ERROR for a method that raised ``name`` with ``message``."""
    return Error(
        call_id,
        Code.HANDLER,
        shorten(message, TEXT_CHARS_MAX),
        shorten(name, METHOD_CHARS_MAX),
        shorten(traceback, DETAIL_CHARS_MAX),
    )


def shorten(text: str, octets_max: int) -> str:
    """``text`` within ``octets_max`` octets of UTF-8: its beginning and its end, which say most.

    Lone surrogates (undecodable file names, say) are replaced: they cannot be sent.
    """
    octets = text.encode("utf-8", "replace")
    if len(octets) > octets_max:
        mark = b" [...] "
        head = (octets_max - len(mark)) // 3
        octets = octets[:head] + mark + octets[len(octets) - (octets_max - len(mark) - head) :]
    return octets.decode("utf-8", "ignore")
