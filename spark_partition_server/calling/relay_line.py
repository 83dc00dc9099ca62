"""A line of an asyncio client to a server that is called by way of the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import RemoteProtocolError
from ..net.relay_lane import JOINING_BYTES_MAX, RELAYED_BYTES_MAX
from ..options import ClientOptions
from ..wire.messages import Cancel, Frame, Kind, Member
from ..wire.parts import Parts
from ..wire.relays import BadPart, room_for
from ..wire.zmtp import Allocate, Frames
from .answers import Answers, failure
from .loop_line import Line, Owner

__all__ = ["RelayedLine"]


class RelayedLine(Line):
    """See ``Line``. What leaves and what comes in parts is seen to here.

    Args:
        coordinator: its endpoint.
        proved: called once, when the server has answered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        member: Member,
        answers: Answers,
        options: ClientOptions,
        scratch: memoryview,
        memory: Allocate,
        owner: Owner,
        *,
        coordinator: str,
        proved: Callable[[], None] | None,
    ) -> None:
        relayed = replace(options, message_bytes_max=RELAYED_BYTES_MAX)  # large ones come in parts
        super().__init__(loop, member, answers, relayed, scratch, memory, owner)
        self.endpoint = f"the relay {coordinator}"
        room = room_for(options.message_bytes_max)
        self._parts = Parts(answers.run_id, room, JOINING_BYTES_MAX, self.wanted)
        self._proved = proved

    def send(self, frames: Sequence[Frame], call_id: int = 0) -> None:
        for message in self._parts.send(frames):
            super().send(message, call_id if message is frames else 0)

    def take(self, messages: list[Frames]) -> None:
        taken: list[Frames] = []
        for frames in messages:
            try:
                whole, more = self._parts.take(frames)
            except BadPart as error:
                self._bad(error)
                continue
            except RemoteProtocolError as error:
                self.close(error)
                return
            for message in more:
                super().send(message)
            if whole is not None:
                taken.append(whole)
        if taken:
            super().take(taken)
            if self._proved is not None and taken[0][0][4] != Kind.ERROR:
                self._proved()
                self._proved = None

    def _bad(self, error: BadPart) -> None:
        """One call's answer is of no use; the others are."""
        token = self.inflight.receive(error.call_id)
        if token is not None:
            self.send(self._answers.encode(Cancel(error.call_id)))
            if not token[0].done():
                token[0].set_exception(failure(self._asked(token), error))
