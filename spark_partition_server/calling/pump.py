"""The pump: the one thread of a client that submits calls. It works while nobody waits for them."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from ..net.channel import Watch

if TYPE_CHECKING:
    from .submitter import Submitter

__all__ = ["Pump"]

log = logging.getLogger("spark_partition_server.client")

JOIN_TIMEOUT = 1.0  # seconds; a callback of somebody's may hold the thread longer


class Pump:
    """Runs a submitter's turns. While no call is under way it keeps nothing alive, and ends with the submitter.

    Args:
        submitter: whose turns.
        watch: what is waited for between two turns; closed at the end.
    """

    def __init__(self, submitter: Submitter, watch: Watch) -> None:
        owner = weakref.ref(submitter, lambda _: watch.wake())
        self._thread = threading.Thread(target=_run, args=(owner, watch), name="partition-client-pump", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the end of the thread, which has been told to end, unless it is the caller's own."""
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT)


def _run(owner: weakref.ref[Submitter], watch: Watch) -> None:
    try:
        while True:
            submitter = owner()
            if submitter is None or submitter.closed:
                return
            pause = submitter.turn()
            if pause is None:  # nothing is under way: whoever drops the client now is the last
                del submitter
            ready = watch.wait(pause)
            if ready:
                submitter = owner()
                if submitter is not None:
                    submitter.pumped(ready)
            del ready
    except BaseException:
        log.exception("the thread that reads answers has failed: its calls end")
        submitter = owner()
        if submitter is not None:
            submitter.close()
    finally:
        watch.close()
