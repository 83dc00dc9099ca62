"""The faces of a client, each behind the same blocking names, so that one test body proves both.

An asyncio client lives in a loop of its own, in a thread of its own; whoever calls waits for the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import uvloop

from spark_partition_server import Client, ClientOptions, aio

__all__ = ["FACES", "RELAYED", "Blocking", "Face", "Looping", "Submitting", "UVLooping"]

PATIENCE = 60.0  # seconds; whoever waits this long has failed

uvloop.new_event_loop().close()  # libuv keeps one pipe for the signals of all loops; it comes with the first of them


class Face:
    """What the tests use of a client. ``client`` is the real one.

    Attributes:
        asynchronous: it is an asyncio client.
    """

    asynchronous = False
    client: Any

    def __getattr__(self, name: str) -> Any:
        """A method of the client by its own name."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.client, name)

    def begin(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """A ``call`` that somebody else waits for."""
        raise NotImplementedError

    def partitions(self) -> int:
        """How many the cluster has."""
        raise NotImplementedError

    def end(self) -> None:
        """Closes the client and whatever the face needed."""
        raise NotImplementedError

    def __enter__(self) -> Face:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()


class Blocking(Face):
    """``Client``."""

    def __init__(self, coordinator: str, run_id: bytes, options: ClientOptions) -> None:
        self.client = Client(coordinator, run_id, options)
        self._pool = ThreadPoolExecutor(64)

    def begin(self, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._pool.submit(self.client.call, *args, **kwargs)

    def partitions(self) -> int:
        return self.client.partitions

    def end(self) -> None:
        self.client.close()
        self._pool.shutdown()


class Submitting(Blocking):
    """``Client.submit``."""

    def begin(self, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.client.submit(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.submit(*args, **kwargs).result()


class Looping(Face):
    """``aio.Client`` on asyncio's own loop."""

    asynchronous = True
    new_loop: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.new_event_loop)

    def __init__(self, coordinator: str, run_id: bytes, options: ClientOptions) -> None:
        self.loop = self.new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="face", daemon=True)
        self._thread.start()
        self.client = aio.Client(coordinator, run_id, options)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Runs a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine in the loop, and waits for it."""
        return self.start(coroutine).result(PATIENCE)

    def begin(self, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.start(self.client.call(*args, **kwargs))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.call(*args, **kwargs))

    def call_all(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.call_all(*args, **kwargs))

    def call_many(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.call_many(*args, **kwargs))

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        async def made() -> Any:
            return self.client.stream(*args, **kwargs)

        return _Streaming(self, self.run(made()))

    def wait_for_ready(self, *args: Any, **kwargs: Any) -> None:
        self.run(self.client.wait_for_ready(*args, **kwargs))

    def call_key(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.call_key(*args, **kwargs))

    def call_keys(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.call_keys(*args, **kwargs))

    def partition_of(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.partition_of(*args, **kwargs))

    def partition(self, partition: int) -> Any:
        return _Waiting(self, self.client.partition(partition))

    def partitions(self) -> int:
        return self.run(self.client.partitions())

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        self.run(self.client.refresh(*args, **kwargs))

    def close(self) -> None:
        self.run(self.client.aclose())

    def end(self) -> None:
        try:
            self.run(self.client.aclose())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


class UVLooping(Looping):
    """``aio.Client`` on uvloop."""

    new_loop = staticmethod(uvloop.new_event_loop)


class _Waiting:
    """A partition whose methods are waited for."""

    def __init__(self, face: Looping, partition: Any) -> None:
        self._face = face
        self._partition = partition

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._partition, name)
        return lambda *args, **kwargs: self._face.run(found(*args, **kwargs))

    def __repr__(self) -> str:
        return repr(self._partition)


class _Streaming:
    """A stream whose items are waited for."""

    def __init__(self, face: Looping, stream: Any) -> None:
        self._face = face
        self._stream = stream

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            return self._face.run(self._next())
        except StopAsyncIteration:
            raise StopIteration(self._stream.returned) from None

    async def _next(self) -> Any:
        return await self._stream.__anext__()

    @property
    def items(self) -> int:
        return self._stream.items

    def close(self) -> None:
        self._face.run(self._stream.aclose())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Relayed(Blocking):
    """``Client`` by way of the coordinator."""

    def __init__(self, coordinator: str, run_id: bytes, options: ClientOptions) -> None:
        super().__init__(coordinator, run_id, replace(options, route="relay"))


class RelayedSubmitting(Submitting):
    """``Client.submit`` by way of the coordinator."""

    def __init__(self, coordinator: str, run_id: bytes, options: ClientOptions) -> None:
        super().__init__(coordinator, run_id, replace(options, route="relay"))


class RelayedLooping(Looping):
    """``aio.Client`` by way of the coordinator."""

    def __init__(self, coordinator: str, run_id: bytes, options: ClientOptions) -> None:
        super().__init__(coordinator, run_id, replace(options, route="relay"))


FACES: dict[str, type[Face]] = {"blocking": Blocking, "submit": Submitting, "asyncio": Looping, "uvloop": UVLooping}
RELAYED: dict[str, type[Face]] = {"blocking": Relayed, "submit": RelayedSubmitting, "asyncio": RelayedLooping}

