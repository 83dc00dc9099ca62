"""The relay, client side, for many calls at once: a channel to one server that leads over the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..wire.fields import Frame
from ..wire.messages import Kind
from ..wire.parts import Parts
from ..wire.relays import BEGINNINGS, BadPart, call_of, final, room_for
from ..wire.zmtp import Frames, encode_vector
from .channel import Channel
from .lane import Lane
from .relay_lane import JOINING_BYTES_MAX

__all__ = ["RelayChannel"]

EXPECTED_MAX = 4096  # calls whose answers are waited for; the coordinator takes fewer


class RelayChannel(Channel):
    """See ``Channel``. What leaves and what comes in parts is seen to here.

    Args:
        lane: a connection to the coordinator.
        line: whatever its owner knows the channel by.
        run_id: of the messages.
        message_bytes_max: the largest payload accepted.
        proved: called once, when the server has answered.
    """

    __slots__ = ("_culprit", "_expected", "_guard", "_more", "_parts", "_proved")

    def __init__(
        self, lane: Lane, line: Any, run_id: bytes, message_bytes_max: int, proved: Callable[[], None] | None
    ) -> None:
        super().__init__(lane, line)
        self._expected: dict[int, None] = {}
        self._parts = Parts(run_id, room_for(message_bytes_max), JOINING_BYTES_MAX, self._expected.__contains__)
        self._guard = threading.Lock()  # one thread adds while another takes
        self._more: list[Frame] = []
        self._culprit: int | None = None
        self._proved = proved

    def add(self, frames: Sequence[Frame]) -> int:
        kind = frames[0][4]
        with self._guard:
            if kind in BEGINNINGS:
                self._expected[call_of(frames)] = None
                if len(self._expected) > EXPECTED_MAX:  # the oldest was never answered
                    self._give_up(next(iter(self._expected)))
            elif kind == Kind.CANCEL:
                self._expected.pop(call_of(frames), None)
            messages = self._parts.send(frames)
        mark = self.added
        for message in messages:
            mark = super().add(message)
        return mark

    def take(self) -> list[Frames] | None:
        messages = super().take()
        if messages is None:
            return None
        taken = []
        with self._guard:
            for frames in messages:
                try:
                    whole, more = self._parts.take(frames)
                except BadPart as error:
                    self._culprit = error.call_id
                    raise
                for message in more:
                    self._more += encode_vector(message)
                if whole is not None:
                    self._note(whole)
                    taken.append(whole)
        return taken

    def culprit(self) -> int | None:
        return self._culprit

    def output(self) -> bytes:
        """Credit, and what credit has let go, with what the protocol itself wants to answer."""
        more, self._more = self._more, []
        return b"".join([super().output(), *more])

    def _note(self, frames: Frames) -> None:
        if final(frames[0]):
            self._expected.pop(call_of(frames), None)
        if self._proved is not None and frames[0][4] != Kind.ERROR:
            self._proved()
            self._proved = None

    def _give_up(self, call_id: int) -> None:
        del self._expected[call_id]
        self._parts.forget(call_id)
