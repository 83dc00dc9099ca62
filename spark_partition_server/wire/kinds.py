"""The numbers of the messages, and what all messages have in common (PROTOCOL.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar

from ..errors import LocalProtocolError
from .fields import Check

__all__ = ["Kind", "Message", "checked"]


class Kind(IntEnum):
    """Message numbers. ONLY APPEND: the numbers are the protocol. Gaps separate the planes."""

    HELLO = 1
    WELCOME = 2
    HEARTBEAT = 3
    VIEW = 4
    SHUTDOWN = 5
    GOODBYE = 6
    REFUSE = 7
    LOOKUP = 8
    STOP = 9
    RELAY = 10
    ATTACH = 11
    REQUEST = 32
    REPLY = 33
    ERROR = 34
    CANCEL = 35
    BATCH = 36
    RESULTS = 37
    STREAM = 38
    ITEMS = 39
    CREDIT = 40
    PART = 41
    MEET = 64
    TELL = 65
    OFFER = 66
    GRANT = 67
    DATA = 68
    ROOM = 69
    ALARM = 70
    ASK = 71
    STAND = 72
    BALLOT = 73


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages: checks every field when it is made."""

    kind: ClassVar[Kind]
    # Kept, because dataclasses.fields() would make the list anew for every heartbeat.
    checks: ClassVar[tuple[tuple[str, Check], ...]]

    def __post_init__(self) -> None:
        for name, check in self.checks:
            problem = check(getattr(self, name))
            if problem is not None:
                raise LocalProtocolError(f"{type(self).__name__}.{name}: {problem}")


def checked(*messages: type[Message]) -> dict[Kind, type[Message]]:
    """Messages by their kinds, after each has been given the checks of its fields."""
    for message in messages:
        message.checks = tuple((known.name, known.metadata["check"]) for known in fields(message))
    return {message.kind: message for message in messages}
