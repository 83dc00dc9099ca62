"""The calls by key that a client has: which partition a key lives in, and calls of the partitions that own theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .calling.routes import Routes
from .keys import Keys
from .net.clock import monotonic

__all__ = ["KeyedCalls"]


class KeyedCalls:
    """What ``Client`` has of it; docs/keys.md says which keys can be called by."""

    _keys: Keys
    _routes: Routes
    _timeout: float

    def partition_of(self, key: Any, timeout: float | None = None) -> int:
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
            self.refresh(timeout)
        return self._keys.partition_of(key, calls.partitioner, calls.size)

    def call_key(self, key: Any, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Runs a method of the partition that owns ``key``: ``client.call_key("alice", "get", "alice")``.

        The key only says where; what the method gets are ``args``.

        Raises:
            RoutingError: nobody can tell the partition (``NoPartitioner``, ``UnroutableKey``); nothing was called.
            CallError, ClusterError, TypeError: as ``call``.
        """
        if self._routes.calls.view_number:
            return self.call(self.partition_of(key), method, *args, timeout=timeout, **kwargs)
        timeout = self._timeout if timeout is None else timeout
        deadline = monotonic() + timeout
        partition = self.partition_of(key, timeout)
        return self.call(partition, method, *args, timeout=deadline - monotonic(), **kwargs)

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
        deadline = monotonic() + (self._timeout if timeout is None else timeout)
        calls = [(self.partition_of(key, timeout), key, *args) for key in keys]
        return self.call_many(method, calls, timeout=deadline - monotonic(), return_errors=return_errors)

    # ------------------------------------------------------------------------------- what Client brings with it

    def call(self, partition: int, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Of ``Client``."""
        raise NotImplementedError

    def call_many(
        self, method: str, calls: Iterable[Any], /, *, timeout: float | None = None, return_errors: bool = False
    ) -> list[Any]:
        """Of ``Client``."""
        raise NotImplementedError

    def refresh(self, timeout: float | None = None) -> None:
        """Of ``Client``."""
        raise NotImplementedError
