"""A server's rules: which requests it admits, and what an outcome becomes on the wire.

The request has been read from its frames, the reply is framed elsewhere; here is only what is decided in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..wire.codec import Fields
from ..wire.codes import Code
from ..wire.messages import DETAIL_CHARS_MAX, METHOD_CHARS_MAX, TEXT_CHARS_MAX, Error

__all__ = ["Dispatch", "Handler", "handler_error", "shorten"]

Handler = Callable[..., Any]


class Dispatch:
    """What one incarnation of one partition answers.

    Args:
        rank: the partition served.
        incarnation: this life of its server.
        handlers: the methods by name.
    """

    __slots__ = ("handlers", "incarnation", "leaving", "rank")

    def __init__(self, rank: int, incarnation: int, handlers: Mapping[str, Handler]) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.handlers = dict(handlers)
        self.leaving = False

    def admit(self, fields: Fields, received: float, now: float) -> Handler | Error:
        """The handler that is to run, or the ERROR to send. Every refusal here is definite: nothing has run."""
        call_id, method, remaining_ms, rank, incarnation = fields
        if rank != self.rank or incarnation != self.incarnation:
            return self._wrong_member(call_id, rank, incarnation)
        if self.leaving:
            return Error(call_id, Code.UNAVAILABLE, f"partition {self.rank} is shutting down")
        handler = self.handlers.get(method)
        if handler is None:
            known = ", ".join(sorted(self.handlers)) or "none"
            return Error(call_id, Code.UNIMPLEMENTED, shorten(f"no such method; there are: {known}", TEXT_CHARS_MAX))
        if (now - received) * 1000 > remaining_ms:
            waited = (now - received) * 1000
            return Error(call_id, Code.TIMEOUT, f"it waited {waited:.0f} ms, {remaining_ms} ms were allowed; not run")
        return handler

    def _wrong_member(self, call_id: int, rank: int, incarnation: int) -> Error:
        text = (
            f"this is incarnation {self.incarnation} of partition {self.rank}, "
            f"not incarnation {incarnation} of partition {rank}"
        )
        return Error(call_id, Code.WRONG_MEMBER, text)


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
