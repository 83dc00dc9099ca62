"""Work in threads of a test: one call that somebody else makes, or many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["at_once", "begin"]

PATIENCE = 60.0  # seconds; whoever waits this long has failed


def begin(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Calls it in a thread of its own; the future has what it returned or raised."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - whoever asks the future gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="begun", daemon=True).start()
    return future


def at_once(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Calls ``function(0)`` to ``function(count - 1)``, each in a thread, all let go at one time.

    Returns:
        What they returned, in order.

    Raises:
        Exception: what the first of them raised.
    """
    ready = threading.Barrier(count)

    def run(number: int) -> Any:
        ready.wait(PATIENCE)
        return function(number)

    futures = [begin(run, number) for number in range(count)]
    return [future.result(PATIENCE) for future in futures]
