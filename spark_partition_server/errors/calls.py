"""The errors of one call."""

from __future__ import annotations

from typing import Any, ClassVar

from .base import SparkPartitionServerError

__all__ = [
    "CallError",
    "CallOutcomeUnknown",
    "CallTimeout",
    "HandlerError",
    "InvalidArguments",
    "MessageTooLarge",
    "MethodNotFound",
    "Overloaded",
    "StreamLost",
    "Unavailable",
]


class CallError(SparkPartitionServerError):
    """One call that did not end in a reply.

    Attributes:
        rank: the partition that was called.
        method: the method that was called.
        endpoint: where the request went or would have gone, or ``None`` where there was nowhere to go.
        code: the wire's error code, 0 where no message carried one.
        definite: True when the call certainly did not and will not take effect.
    """

    definite_by_default: ClassVar[bool] = False

    def __init__(
        self,
        text: str,
        *,
        rank: int | None = None,
        method: str | None = None,
        endpoint: str | None = None,
        code: int = 0,
        definite: bool | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.rank = rank
        self.method = method
        self.endpoint = endpoint
        self.code = code
        self.definite = self.definite_by_default if definite is None else definite

    def add(self, more: str) -> None:
        """Says more in the text."""
        self.text = f"{self.text}; {more}"
        self.args = (self.text,)

    def __str__(self) -> str:
        if self.rank is None:
            return self.text
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"partition {self.rank}{where}, method {self.method!r}: {self.text}"


class CallTimeout(CallError, TimeoutError):
    """No answer by the deadline. The method may still run (``definite`` is False) once the request has left."""


class Unavailable(CallError, ConnectionError):
    """Nobody serves the partition, or its server cannot be reached; the request was not run."""

    definite_by_default = True


class Overloaded(CallError):
    """The server had no room for the request, or the client has too many under way; try again later.

    Attributes:
        retry_after: seconds to wait before another try, as far as is known.
    """

    definite_by_default = True
    retry_after: float = 0.0


class MethodNotFound(CallError):
    """The server has no method of that name."""

    definite_by_default = True


class InvalidArguments(CallError):
    """The arguments do not fit the method's signature, or the partition does not exist."""

    definite_by_default = True


class MessageTooLarge(CallError):
    """The request (definite) or the reply (not definite: the method has run) is over the limit."""


class HandlerError(CallError):
    """The method raised.

    Attributes:
        remote_type: the class name of the exception on the server.
        remote_message: its text.
        remote_traceback: the formatted traceback, as text; never code.
    """

    def __init__(
        self,
        text: str,
        *,
        remote_type: str = "",
        remote_message: str = "",
        remote_traceback: str = "",
        **where: Any,
    ) -> None:
        super().__init__(text, **where)
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.remote_traceback.rstrip()}" if self.remote_traceback else text


class CallOutcomeUnknown(CallError, ConnectionError):
    """The server was lost after the request had left: the method may or may not have run.

    Declare the method ``@method(idempotent=True)`` and the client repeats it by itself.
    """


class StreamLost(CallOutcomeUnknown):
    """The server of a stream was lost half-way. What had come stands; the stream is not begun again by itself.

    Attributes:
        items: how many items had come.
    """

    items: int = 0
