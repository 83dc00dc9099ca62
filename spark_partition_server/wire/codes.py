"""The error codes of ERROR, REFUSE and GOODBYE messages (PROTOCOL.md, section 11). Append-only."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["CODES", "Code", "Meaning"]


class Code(IntEnum):
    """Why something was refused, failed or ended."""

    OK = 0
    TIMEOUT = 1
    WRONG_MEMBER = 2
    UNIMPLEMENTED = 3
    INVALID_ARGUMENT = 4
    OVERLOADED = 5
    UNAVAILABLE = 6
    HANDLER = 7
    CANCELLED = 8
    STALE = 9
    BAD_TOKEN = 10
    VERSION = 11
    UNKNOWN_KIND = 12
    TOO_LARGE = 13
    MALFORMED = 14
    WRONG_RUN = 15
    NOT_MEMBER = 16
    CLOSED = 17
    INIT_FAILED = 18
    JOB_FAILED = 19
    REPLY_TOO_LARGE = 20
    UNEXPECTED = 21
    PORT_UNAVAILABLE = 22
    LOST = 23

    @classmethod
    def of(cls, number: int) -> Code:
        """The code of that number; UNEXPECTED for an application's own (1000 and above) and for later ones."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNEXPECTED


class Meaning(NamedTuple):
    """What a code promises: ``definite`` = it certainly did not happen; ``retry`` = trying again can help."""

    definite: bool
    retry: bool
    sentence: str


CODES: dict[Code, Meaning] = {
    Code.OK: Meaning(True, False, "Nothing went wrong; only in GOODBYE."),
    Code.TIMEOUT: Meaning(True, False, "The time the caller allowed was over before the request was run."),
    Code.WRONG_MEMBER: Meaning(True, True, "The request names another rank or incarnation than the receiver's."),
    Code.UNIMPLEMENTED: Meaning(True, False, "The server has no method of that name."),
    Code.INVALID_ARGUMENT: Meaning(True, False, "The arguments cannot be decoded, or do not fit the method."),
    Code.OVERLOADED: Meaning(True, True, "No room for another request now."),
    Code.UNAVAILABLE: Meaning(True, True, "The server is leaving, or is not ready."),
    Code.HANDLER: Meaning(False, False, "The method ran and raised, or its result cannot be encoded."),
    Code.CANCELLED: Meaning(False, False, "The caller took the request back."),
    Code.STALE: Meaning(True, False, "A later incarnation of this rank is a member; this one must end."),
    Code.BAD_TOKEN: Meaning(True, False, "The run token is missing or wrong."),
    Code.VERSION: Meaning(True, False, "No protocol version in common."),
    Code.UNKNOWN_KIND: Meaning(True, False, "The receiver knows no message of that kind."),
    Code.TOO_LARGE: Meaning(True, False, "The request is over the receiver's limit."),
    Code.MALFORMED: Meaning(True, False, "The message breaks the format of its kind."),
    Code.WRONG_RUN: Meaning(True, False, "The message belongs to another run of a cluster."),
    Code.NOT_MEMBER: Meaning(True, True, "The coordinator does not know the sender; it must say HELLO again."),
    Code.CLOSED: Meaning(True, False, "The cluster is stopping or has stopped."),
    Code.INIT_FAILED: Meaning(True, False, "init_partition raised; only in GOODBYE."),
    Code.JOB_FAILED: Meaning(True, False, "The Spark job that runs the servers has failed."),
    Code.REPLY_TOO_LARGE: Meaning(False, False, "The method ran, and its reply is over the server's limit."),
    Code.UNEXPECTED: Meaning(True, False, "A known message that the receiver does not take in its role or state."),
    Code.PORT_UNAVAILABLE: Meaning(True, False, "No port could be bound on the executor; only in GOODBYE."),
    Code.LOST: Meaning(False, True, "The server was lost after the request had been relayed to it."),
}
