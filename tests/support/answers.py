"""``Answering`` without sockets: messages go in by hand, answers are kept by the callers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spark_partition_server.core.dispatch import Dispatch
from spark_partition_server.net.clock import monotonic
from spark_partition_server.net.connection import Caller
from spark_partition_server.options import ServerOptions
from spark_partition_server.serving import answering as answering_module
from spark_partition_server.serving.answering import Answering
from spark_partition_server.wire import codec
from spark_partition_server.wire.messages import Batch, Cancel, Credit, Items, Message, Reply, Request, Results, Stream
from spark_partition_server.wire.payload import decode_value, encode_value

__all__ = ["RUN_ID", "Asked", "Served", "busy_server", "value_of"]

RUN_ID = bytes(range(8))
RANK, INCARNATION = 3, 7
LONG_MS = 60_000


class Asked(Caller):
    """A caller that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.holds: list[bool] = []
        self.stuck = False

    @property
    def congested(self) -> bool:
        return self.stuck

    def send(self, frames: Sequence[Any]) -> None:
        self.sent.append(codec.decode([bytes(frame) for frame in frames], RUN_ID))

    def hold(self, held: bool) -> None:
        self.holds.append(held)

    def results(self) -> dict[int, Any]:
        """What has been answered, by call id: values, or codes of errors."""
        ends = (one for one in self.sent if not isinstance(one, Items))
        return {one.call_id: value_of(one) if isinstance(one, (Reply, Results)) else one.code for one in ends}


def value_of(message: Any) -> Any:
    """The value that a message carries."""
    return decode_value(message.payload)


class Served:
    """What answers, and the ways to ask it. Every method sends one message, answered at once or later."""

    def __init__(self, handlers: dict[str, Any], streams: dict[str, Any] | None = None, **options: Any) -> None:
        threads = options.pop("threads", 0)
        coroutines = options.pop("coroutines", ())
        dispatch = Dispatch(RANK, INCARNATION, handlers, streams)
        self.answering = Answering(dispatch, RUN_ID, ServerOptions(**options), threads=threads, coroutines=coroutines)

    def tell(self, message: Message, caller: Asked, received: float | None = None) -> None:
        frames = [bytes(frame) for frame in codec.encode(message, RUN_ID)]
        answer = self.answering.answer(frames, monotonic() if received is None else received, caller)
        if answer is not None:
            caller.send(answer)

    def call(self, caller: Asked, call_id: int, method: str, *args: Any, ms: int = LONG_MS, ago: float = 0.0) -> None:
        payload = tuple(encode_value([args, {}]))
        self.tell(Request(call_id, method, ms, RANK, INCARNATION, payload), caller, monotonic() - ago)

    def batch(self, caller: Asked, call_id: int, method: str, runs: Any, ms: int = LONG_MS, ago: float = 0.0) -> None:
        payload = tuple(encode_value(runs))
        self.tell(Batch(call_id, method, ms, RANK, INCARNATION, payload), caller, monotonic() - ago)

    def stream(
        self, caller: Asked, call_id: int, method: str, *args: Any, credit: int = 0, ms: int = LONG_MS
    ) -> None:
        payload = tuple(encode_value([args, {}]))
        self.tell(Stream(call_id, method, ms, RANK, INCARNATION, credit, payload), caller)

    def credit(self, caller: Asked, call_id: int, items: int) -> None:
        self.tell(Credit(call_id, items), caller)

    def cancel(self, caller: Asked, call_id: int) -> None:
        self.tell(Cancel(call_id), caller)

    def work(self, turns: int = 1000) -> None:
        """Turns until nothing is left to do."""
        for _ in range(turns):
            again = self.answering.work()
            if again is None or again > 0:
                return

    def items(self, caller: Asked, call_id: int) -> list[Any]:
        """The items that a stream has sent so far."""
        found = [one for one in caller.sent if isinstance(one, Items) and one.call_id == call_id]
        values: list[Any] = []
        for one in found:
            assert one.sequence == len(values)
            values += value_of(one)
        return values


@contextlib.contextmanager
def busy_server(monkeypatch: Any, handlers: dict[str, Callable[..., Any]], **options: Any) -> Iterator[Served]:
    """A server that has not looked at its sockets for too long: whatever is asked now waits for its turn."""
    served = Served(handlers, **options)
    served.answering._spent = 2 * answering_module.SLICE
    yield served
    served.answering.close()
    served.answering.desk.load.check()
    assert not served.answering.busy()
