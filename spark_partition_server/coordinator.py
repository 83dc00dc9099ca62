"""The coordinator: who serves which partition, on the driver. ``core.membership`` behind a ROUTER."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from .core.effects import Effect, InitFailed, Joined, Left, Lost, Refused, StopAsked
from .core.membership import Membership
from .core.relaying import Relaying
from .errors import CoordinatorLost, NotStarted, PortUnavailable
from .net.control import router
from .net.door import Door
from .net.endpoints import bind_tcp, tcp_endpoint
from .net.loop import Loop
from .options import ClusterOptions
from .placement import complaint
from .wire.codec import RUN_ID_BYTES
from .wire.codes import Code
from .wire.messages import RANKS_MAX, Goodbye

__all__ = ["Coordinator"]

log = logging.getLogger("spark_partition_server.coordinator")

TOKEN_BYTES = 32
STOP_TIMEOUT = 5.0
CLIENTS_MAX = 4096  # connections to the relay's door, besides one of every member

RegisterCallback = Callable[[dict[str, Any]], None]
StopCallback = Callable[[str], None]


class Coordinator:
    """Takes registrations of partition servers and tells everybody where they are.

    Args:
        await_partitions: how many partitions make a full cluster; None: not known.
        verbose: log registrations at level INFO instead of DEBUG.
        token: what a server must know to register; default: 32 random octets.
        host: the address that executors and clients are told.
        options: address to bind, ports, heartbeats.
        idempotent: methods that clients may repeat.
        partitioner: where keys live, for clients (``keys.describe``).
        message_bytes_max: the largest request that the servers take, for clients.

    Attributes:
        hosts: partition -> (host, port) of everybody registered now. Live: it changes while the cluster does.
        full_cluster: whether every awaited partition is registered; None where their number is not known.
        run_id: names this run in every message.
        token: as given or drawn.
        admin_token: drawn; whoever knows it may stop the run.
    """

    def __init__(
        self,
        await_partitions: int | None = None,
        verbose: bool = True,
        token: bytes | None = None,
        *,
        host: str = "127.0.0.1",
        options: ClusterOptions | None = None,
        idempotent: list[str] | None = None,
        partitioner: dict[str, Any] | None = None,
        message_bytes_max: int | None = None,
    ) -> None:
        self.await_partitions = await_partitions
        self.verbose = verbose
        self.token = os.urandom(TOKEN_BYTES) if token is None else token
        self.admin_token = os.urandom(TOKEN_BYTES)
        self.run_id = os.urandom(RUN_ID_BYTES)
        self.hosts: dict[int, tuple[str, int]] = {}
        self.full_cluster: bool | None = None if await_partitions is None else False
        self.was_full = False  # at some time
        self.register_callback: RegisterCallback | None = None
        self.stop_callback: StopCallback | None = None
        self.init_failures: list[Goodbye] = []
        self._host = host
        self._options = options or ClusterOptions()
        self._meta: dict[str, Any] = {"idempotent": list(idempotent or ())}
        if partitioner is not None:
            self._meta["partitioner"] = partitioner
        if message_bytes_max is not None:
            self._meta["message_bytes_max"] = message_bytes_max
        self._complained = False  # about keys that are not where they belong
        self._changed = threading.Condition()
        self._port: int | None = None
        self._relay_port = 0
        self._to_look = False  # the relay has yet to look who has come or gone
        self._loop: Loop | None = None
        self._membership: Membership | None = None
        self._relaying: Relaying

    # -------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Binds the port and starts the thread. A second call changes nothing.

        Raises:
            PortUnavailable: no port of the range can be bound.
        """
        if self._loop is not None:
            return
        options = self._options
        size = self.await_partitions or RANKS_MAX
        host, expected = options.bind_host or self._host, self.await_partitions or 64
        context, bound, port = router(host, options.ports, expected)
        entrance = self._entrance(host)
        self._relay_port = 0 if entrance is None else entrance.getsockname()[1]
        meta = {**self._meta, "relay_port": self._relay_port} if self._relay_port else self._meta
        times = (options.heartbeat_interval, options.lease)
        self._membership = Membership(size, self.token, *times, meta, self.admin_token, self._relay_port)
        self._relaying = Relaying(self._membership, self.run_id)
        machine, passing = self._membership, self._relaying
        door = None if entrance is None else Door(entrance, passing, self.run_id, expected + CLIENTS_MAX)
        name = "spark-partition-server-coordinator"
        self._loop = Loop(name, context, bound, machine, self.run_id, self._perform, self.notify, passing, door)
        self._port = port
        self._loop.start()

    def _entrance(self, host: str) -> socket.socket | None:
        """The socket of the relay's door. Without one calls are relayed all the same, which takes longer."""
        try:
            return bind_tcp(host, self._options.ports)
        except PortUnavailable as error:
            log.warning("no port for the relay's door: relayed calls go over the coordinator's own (%s)", error)
            return None

    def shutdown_host(self, ind: int, reason: str = "asked by the driver", grace: float = 1.0) -> None:
        """Asks the server of one partition to leave. Nobody there: nothing happens."""
        membership = self._started()
        self._call(lambda now: membership.shutdown_rank(ind, reason, grace))

    def shutdown_hosts(self, reason: str = "the cluster stops", grace: float = 1.0) -> None:
        """Asks all servers to leave; nobody can register any more. Returns at once: see ``wait``."""
        membership = self._started()
        self._call(lambda now: membership.shutdown(reason, grace))

    def shutdown(self) -> None:
        """Ends the coordinator and gives its port back. Twice is harmless."""
        if self._loop is not None and not self._loop.stop(STOP_TIMEOUT):
            log.error("coordinator thread still runs after %g s", STOP_TIMEOUT)
        self.hosts.clear()
        self.full_cluster = None if self.await_partitions is None else False

    stop = shutdown

    def fail(self, text: str) -> None:
        """The servers' Spark job has failed: clients that look for a server learn why there is none."""
        membership = self._started()

        def failed(now: float) -> list[Effect]:
            membership.fail(text)
            return []

        self._call(failed)

    # --------------------------------------------------------------------------------------- what is known

    @property
    def address(self) -> tuple[str, int] | None:
        """The advertised (host, port); None before ``start``."""
        return None if self._port is None else (self._host, self._port)

    def get_url(self) -> str | None:
        """The endpoint that servers and clients connect to; None before ``start``."""
        return None if self._port is None else tcp_endpoint(self._host, self._port)

    def set_register_callback(self, fn: RegisterCallback | None) -> None:
        """Calls ``fn`` with a dict at every registration: ``partition_ind``, ``old_entry``, ``new_entry``,
        ``full_cluster``. It runs in the coordinator's thread: it must not block."""
        self.register_callback = fn

    def set_stop_callback(self, fn: StopCallback | None) -> None:
        """Calls ``fn`` with the reason when somebody who may asks for the end of the run; without one the servers are
        asked to leave. It runs in the coordinator's thread: it must not block."""
        self.stop_callback = fn

    def print_hosts(self) -> None:
        """Prints where every partition is served."""
        for ind, (host, port) in sorted(self.hosts.items()):
            print(f"{ind} - {host}:{port}")

    def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Waits until ``predicate()`` holds, looking again at every change. Returns whether it does.

        Args:
            timeout: seconds.

        Raises:
            CoordinatorLost: the coordinator's thread has ended by itself.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: predicate() or self._failure() is not None, timeout)
        if self._failure() is not None and not predicate():
            raise CoordinatorLost(f"the coordinator's thread has ended: {self._failure()!r}") from self._failure()
        return done

    def notify(self) -> None:
        """Makes everybody in ``wait`` look again."""
        with self._changed:
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------- in the thread

    def _perform(self, effect: Effect) -> None:
        try:
            self._note(effect)
        finally:
            if isinstance(effect, (Joined, Left, Lost)) and not self._to_look:
                self._to_look = True  # once for all that come and go together: it is a look at every lane
                self._call(self._look)
            self.notify()  # also when a user's callback raised

    def _look(self, now: float) -> list[Effect]:
        self._to_look = False
        return list(self._relaying.look(now))

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, Joined):
            self._joined(effect)
        elif isinstance(effect, (Left, Lost)):
            self.hosts.pop(effect.member.rank, None)
            self.full_cluster = None if self.await_partitions is None else False
            self._log_gone(effect)
        elif isinstance(effect, InitFailed):
            goodbye = effect.goodbye
            log.warning("init failed partition=%d host=%s text=%s", goodbye.rank, goodbye.host, goodbye.text)
            self.init_failures.append(goodbye)
        elif isinstance(effect, StopAsked):
            log.info("stop asked reason=%s", effect.reason)
            (self.stop_callback or self.shutdown_hosts)(effect.reason)
        elif isinstance(effect, Refused):
            # an older life of a server that was replaced is refused as a matter of course
            level = logging.INFO if effect.code is Code.STALE else logging.WARNING
            log.log(level, "refused code=%s text=%s", effect.code.name, effect.text)

    def _joined(self, joined: Joined) -> None:
        member, previous = joined.member, joined.previous
        old_entry = (previous.host, previous.port) if previous else None
        self.hosts[member.rank] = (member.host, member.port)
        if self.await_partitions is not None:
            self.full_cluster = len(self.hosts) == self.await_partitions
            self.was_full = self.was_full or self.full_cluster
        where = f"{member.host}:{member.port}"
        self._log("joined partition=%d at=%s attempt=%d", member.rank, where, member.attempt)
        if previous is not None and previous.incarnation != member.incarnation:
            log.warning("replaced partition=%d: its server was lost, attempt %d serves", member.rank, member.attempt)
        misplaced = complaint(member.rank, joined.meta, self._meta.get("partitioner"))
        if misplaced is not None and not self._complained:
            self._complained = True  # the others would say the same
            log.warning("misplaced keys: %s", misplaced)
        if self.register_callback is not None:
            self.register_callback(
                {
                    "partition_ind": member.rank,
                    "old_entry": old_entry,
                    "new_entry": (member.host, member.port),
                    "full_cluster": self.full_cluster,
                }
            )

    def _log_gone(self, gone: Left | Lost) -> None:
        if isinstance(gone, Lost):
            log.warning("lost partition=%d silent=%.1f", gone.member.rank, gone.silent)
        elif gone.code is Code.OK:
            self._log("left partition=%d", gone.member.rank)
        else:
            log.warning("left partition=%d code=%s text=%s", gone.member.rank, gone.code.name, gone.text)

    def _log(self, text: str, *values: Any) -> None:
        log.log(logging.INFO if self.verbose else logging.DEBUG, text, *values)

    # --------------------------------------------------------------------------------------------- helpers

    def _started(self) -> Membership:
        if self._membership is None:
            raise NotStarted("the coordinator was not started")
        return self._membership

    def _call(self, command: Callable[[float], list[Effect]]) -> None:
        assert self._loop is not None
        self._loop.call(command)

    def _failure(self) -> BaseException | None:
        return self._loop.failure if self._loop is not None else None
