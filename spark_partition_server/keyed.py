"""The calls by key of the two clients: which partition a key lives in, and calls of the partitions that own theirs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from .face import Face
from .net.clock import monotonic

__all__ = ["KeyedCalls", "LoopKeyedCalls"]


class KeyedCalls(Face):
    """What ``Client`` has of it; docs/keys.md says which keys can be called by."""

    def partition_of(self, key: Any, timeout: float | None = None) -> int:
        """The partition that a key lives in, by the partitioner of the cluster's data.

        Args:
            timeout: seconds, where the client has still to ask the coordinator; default: the client's.

        Raises:
            NoPartitioner: there is none, or one that this client was not given.
            UnroutableKey: the partitioner cannot place this key.
            ClusterError: the cluster is over or gone.
        """
        if not self._routes.calls.view_number:
            self.refresh(timeout)
        return self._owner(key)

    def call_key(self, key: Any, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of the partition that owns ``key``: ``client.call_key("alice", "get", "alice")``.

        The key only says where; what the method gets are ``args``.

        Raises:
            RoutingError: nobody can tell the partition (``NoPartitioner``, ``UnroutableKey``); nothing was called.
            CallError, ClusterError, TypeError: as ``call``.
        """
        if not self._routes.calls.view_number:
            began, seconds = monotonic(), self._for_many(timeout, method, False)
            self.refresh(seconds)
            timeout = seconds - (monotonic() - began)
        return self.call(self._owner(key), method, *args, timeout=timeout, **kwargs)

    def call_keys(
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
        began, seconds = monotonic(), self._for_many(timeout, method, return_errors)
        if not self._routes.calls.view_number:
            self.refresh(seconds)
        calls = [(self._owner(key), key, *args) for key in keys]
        timeout = seconds - (monotonic() - began)
        return self.call_many(method, calls, timeout=timeout, return_errors=return_errors)

    # --------------------------------------------------------------------------------------- what Client brings with it

    @abstractmethod
    def call(self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Of ``Client``."""

    @abstractmethod
    def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Of ``Client``."""

    @abstractmethod
    def refresh(self, timeout: float | None = None) -> None:
        """Of ``Client``."""


class LoopKeyedCalls(Face):
    """What ``aio.Client`` has of it; docs/keys.md says which keys can be called by."""

    async def partition_of(self, key: Any, timeout: float | None = None) -> int:
        """The partition that a key lives in, by the partitioner of the cluster's data.

        Args:
            timeout: seconds, where the client has still to ask the coordinator; default: the client's.

        Raises:
            NoPartitioner: there is none, or one that this client was not given.
            UnroutableKey: the partitioner cannot place this key.
            ClusterError: the cluster is over or gone.
        """
        if not self._routes.calls.view_number:
            await self.refresh(timeout)
        return self._owner(key)

    async def call_key(self, key: Any, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of the partition that owns ``key``: ``await client.call_key("alice", "get", "alice")``.

        The key only says where; what the method gets are ``args``.

        Raises:
            RoutingError: nobody can tell the partition (``NoPartitioner``, ``UnroutableKey``); nothing was called.
            CallError, ClusterError, TypeError: as ``call``.
        """
        if not self._routes.calls.view_number:
            began, seconds = monotonic(), self._for_many(timeout, method, False)
            await self.refresh(seconds)
            timeout = seconds - (monotonic() - began)
        return await self.call(self._owner(key), method, *args, timeout=timeout, **kwargs)

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
        began, seconds = monotonic(), self._for_many(timeout, method, return_errors)
        if not self._routes.calls.view_number:
            await self.refresh(seconds)
        calls = [(self._owner(key), key, *args) for key in keys]
        timeout = seconds - (monotonic() - began)
        return await self.call_many(method, calls, timeout=timeout, return_errors=return_errors)

    # ----------------------------------------------------------------------------------- what aio.Client brings with it

    @abstractmethod
    async def call(
        self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Of ``aio.Client``."""

    @abstractmethod
    async def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Of ``aio.Client``."""

    @abstractmethod
    async def refresh(self, timeout: float | None = None) -> None:
        """Of ``aio.Client``."""
