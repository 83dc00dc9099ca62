"""The root of the tree, and the errors that belong to no call and no cluster."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthenticationError",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "SparkPartitionServerError",
    "VersionMismatch",
]


class SparkPartitionServerError(Exception):
    """Base of every error of this library. All of them can be pickled, for users who send them on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[SparkPartitionServerError], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """An error as it was, without its constructor, which may take other arguments than it keeps."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# ------------------------------------------------------------------------------------------- protocol


class ProtocolError(SparkPartitionServerError):
    """A message or a stream of bytes that breaks the protocol."""


class LocalProtocolError(ProtocolError):
    """This side tried to build a message that the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol forbids.

    Attributes:
        code: the error code (``wire.codes.Code``) that a refusal would carry.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class VersionMismatch(ProtocolError):
    """The two sides have no protocol version in common.

    Attributes:
        local: the version that this side speaks.
        remote: what the other side said of itself, as text.
    """

    def __init__(self, local: int, remote: str) -> None:
        super().__init__(local, remote)
        self.local = local
        self.remote = remote

    def __str__(self) -> str:
        return (
            f"this side speaks protocol version {self.local}, the other one says: {self.remote}; "
            "install the same release of spark-partition-server on both"
        )


class AuthenticationError(SparkPartitionServerError):
    """The other side refused our credentials."""
