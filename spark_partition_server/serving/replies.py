"""Answers as frames: what a method returned, raised, or should not have been asked."""

from __future__ import annotations

import inspect
import math
import traceback
from typing import Any

from ..core.dispatch import Handler, handler_error, shorten
from ..wire import codec
from ..wire.codes import Code
from ..wire.lists import ListEncoder
from ..wire.messages import TEXT_CHARS_MAX, U32, Error, Frame, Kind, Message
from ..wire.payload import ValueEncoder, size_of

__all__ = ["Replies", "failed", "invalid", "too_large", "unsendable"]

OVERLOADED = int(Code.OVERLOADED)


class Replies:
    """Makes the answers of one thread, which keeps its own packers.

    Args:
        run_id: of the messages.
        bytes_max: the largest payload of an answer.

    Attributes:
        values: encodes them.
        pack_fields: packs the fields of a message.
        results: the preamble of RESULTS.
        items: encodes the items of streams, message by message.
        items_preamble: of ITEMS.
        answered: calls that ended well.
        errors: calls that did not.
    """

    def __init__(self, run_id: bytes, bytes_max: int) -> None:
        self.run_id = run_id
        self.bytes_max = bytes_max
        self.answered = 0
        self.errors = 0
        self.values = ValueEncoder()
        self.pack_fields = codec.field_packer()
        self.results = codec.preamble(Kind.RESULTS, run_id)
        self.items = ListEncoder()
        self.items_preamble = codec.preamble(Kind.ITEMS, run_id)
        self._reply = codec.preamble(Kind.REPLY, run_id)
        self._error = codec.preamble(Kind.ERROR, run_id)

    def reply(self, call_id: int, result: Any) -> list[Frame]:
        """REPLY, or the ERROR where the result cannot be sent."""
        try:
            payload = self.values.encode(result)
        except TypeError as error:
            return self.error(unsendable(call_id, error))
        if len(payload) > 1 or len(payload[0]) > self.bytes_max:
            size = size_of(payload)
            if size > self.bytes_max:
                return self.error(too_large(call_id, size, self.bytes_max))
        self.answered += 1
        return [self._reply, self.pack_fields((call_id,)), *payload]

    def error(self, error: Error) -> list[Frame]:
        """ERROR."""
        self.errors += 1
        return codec.encode(error, self.run_id)

    def overloaded(self, call_id: int, calls: int, wait: float) -> list[Frame]:
        """ERROR OVERLOADED, without ceremony: a server that is asked for twice what it can do says it as often as it
        answers.

        Args:
            call_id: of the call that is turned away.
            calls: in the book.
            wait: seconds until another try.
        """
        self.errors += 1
        retry_ms = min(max(math.ceil(wait * 1000), 1), U32)
        text = f"{calls} calls wait or are under way; not run; try again in {retry_ms} ms"
        return [self._error, self.pack_fields((call_id, OVERLOADED, text, "", "", retry_ms))]

    def encode(self, message: Message) -> list[Frame]:
        """Any message."""
        return codec.encode(message, self.run_id)


def failed(call_id: int, handler: Handler, args: Any, kwargs: Any, error: BaseException) -> Error:
    """What a raised exception becomes: arguments that do not fit are the caller's fault and definite.

    To be called by the function that has called the handler, with the exception as it was caught there.
    """
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    if isinstance(error, TypeError) and inner is None:  # raised by the call itself, not inside the method
        try:
            signature = inspect.signature(handler)
            signature.bind(*args, **kwargs)
        except TypeError as mismatch:
            name = getattr(handler, "__name__", "the method")
            return invalid(call_id, f"the arguments do not fit: {mismatch}; it is {name}{signature}")
        except ValueError:
            pass  # no signature to be had
    if inner is not None:
        error = error.with_traceback(inner)  # the server's own frame says nothing
    text = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is one all the same
        message = "its text cannot be printed"
    return handler_error(call_id, type(error).__name__, message, text)


def invalid(call_id: int, text: str) -> Error:
    """The ERROR for arguments that are none, or do not fit."""
    return Error(call_id, Code.INVALID_ARGUMENT, shorten(text, TEXT_CHARS_MAX))


def unsendable(call_id: int, error: TypeError) -> Error:
    """The ERROR for a result that is no value."""
    return handler_error(call_id, "TypeError", f"its result cannot be sent: {error}", "")


def too_large(call_id: int, size: int, bytes_max: int) -> Error:
    """The ERROR for a result over the server's limit."""
    text = f"the reply takes {size} octets, the limit is {bytes_max} (message_bytes_max)"
    return Error(call_id, Code.REPLY_TOO_LARGE, text)
