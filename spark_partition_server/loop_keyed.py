"""The calls by key that an asyncio client has: those of ``keyed``, awaitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .calling.loop_routes import LoopRoutes
from .keys import Keys
from .net.clock import monotonic

__all__ = ["LoopKeyedCalls"]



class LoopKeyedCalls:
    """What ``aio.Client`` has of it; docs/keys.md says which keys can be called by."""

    _keys: Keys
    _routes: LoopRoutes
    _timeout: float

    async def partition_of(self, key: Any, timeout: float | None = None) -> int:
        """The partition that a key lives in, by the partitioner of the cluster's data.

        Args:
            timeout: seconds, where the client has still to ask the coordinator; default: the client's.

        Raises:
            NoPartitioner: there is none, or one that this client was not given.
            UnroutableKey: the partitioner cannot place this key.
            ClusterError: the cluster is over or gone.
        """
        calls = self._routes.calls
        if not calls.view_number:
            await self.refresh(timeout)
        return self._keys.partition_of(key, calls.partitioner, calls.size)

    async def call_key(self, key: Any, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of the partition that owns ``key``: ``await client.call_key("alice", "get", "alice")``.

        The key only says where; what the method gets are ``args``.

        Raises:
            RoutingError: nobody can tell the partition (``NoPartitioner``, ``UnroutableKey``); nothing was called.
            CallError, ClusterError, TypeError: as ``call``.
        """
        timeout = self._timeout if timeout is None else timeout
        if not self._routes.calls.view_number:
            deadline = monotonic() + timeout
            await self.refresh(timeout)
            timeout = deadline - monotonic()
        return await self.call(await self.partition_of(key), method, *args, timeout=timeout, **kwargs)

    async def call_keys(
        self,
        method: str,
        keys: Iterable[Any],
        /,
        *args: Any,
        timeout: float | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """Runs ``method(key, *args)`` once for each key, on the partition that owns it.

        Args:
            keys: any number of them; one that is there twice is called twice.
            timeout: seconds for all of them.
            return_errors: an error of one call stands in the list as its exception, and nothing is raised for it.

        Returns:
            the answers, in the order of the keys.

        Raises:
            RoutingError: of the first key whose partition nobody can tell; nothing was called.
            CallError: of the first key, in order, whose call failed; the others have been called too.
            ClusterError, TypeError: as ``call``.
        """
        deadline = monotonic() + (self._timeout if timeout is None else timeout)
        calls = [(await self.partition_of(key, timeout), key, *args) for key in keys]
        return await self.call_many(method, calls, timeout=deadline - monotonic(), return_errors=return_errors)

    # --------------------------------------------------------------------------- what aio.Client brings with it

    async def call(
        self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Of ``aio.Client``."""
        raise NotImplementedError

    async def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Of ``aio.Client``."""
        raise NotImplementedError

    async def refresh(self, timeout: float | None = None) -> None:
        """Of ``aio.Client``."""
        raise NotImplementedError
