"""The base of every server that runs on a partition: its life from Spark's call to the result.

A server is made on the driver, pickled, and called by Spark once on every partition. Before the call it holds plain
data only; sockets and threads are born inside the call, on the executor, and are gone when it returns.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .core.dispatch import shorten
from .core.effects import Effect, Ended, ShutdownAsked, Welcomed
from .core.relayed import Relayed
from .core.session import Session
from .errors import (
    AuthenticationError,
    ClusterClosed,
    ClusterError,
    CoordinatorLost,
    NotStarted,
    PortUnavailable,
    VersionMismatch,
)
from .net.control import dealer
from .net.endpoints import address_towards, host_of, tcp_endpoint
from .net.loop import Loop
from .net.relayed import RelayedCaller, RelayedCalls
from .options import ServerOptions
from .placement import Placement, Sample
from .spark.task import Identity, identity
from .wire.codec import RUN_ID_BYTES, VERSION
from .wire.codes import Code
from .wire.messages import DETAIL_CHARS_MAX, TEXT_CHARS_MAX, Hello
from .wire.relays import room_for
from .wire.zmtp import Frames

__all__ = ["PartitionServer"]

log = logging.getLogger("spark_partition_server.server")

JOIN_TIMEOUT = 30.0  # seconds for the first WELCOME; the coordinator was there when Spark shipped this task
LOOP_STOP_TIMEOUT = 5.0


class PartitionServer:
    """A server on one partition. Abstract: subclasses implement ``_launch_server``.

    Args:
        port: the port to listen on; default: any free one (or the range of ``options``).
        config: plain data for the subclass.
        options: how to listen.

    Attributes:
        partition_ind: the partition's index; set when Spark calls the server.
        itr: the partition's iterator; set when Spark calls the server.
        host: the address that others are told.
        port: the port, once it is bound.
        config: as given.
        token: the run's token, as octets; None before the cluster starts.
    """

    def __init__(
        self, port: int | None = None, config: dict[str, Any] | None = None, options: ServerOptions | None = None
    ) -> None:
        self.port = port
        self.config: dict[str, Any] = {} if config is None else config
        self.options = options or ServerOptions()
        self.token: bytes | None = None
        self.coordinator_url: str | None = None
        self.run_id: bytes | None = None
        self.job_group: str | None = None
        self._placement: Placement | None = None

    # -------------------------------------------------------------------------------------- on the driver

    def set_coordinator_url(self, url: str) -> None:
        """Where to register: the coordinator's endpoint. The cluster calls this before it ships the server."""
        self.coordinator_url = url

    def set_token(self, token: bytes) -> None:
        """The run's token. The cluster calls this before it ships the server."""
        self.token = token

    def set_run(self, run_id: bytes, job_group: str | None) -> None:
        """The run this server belongs to. The cluster calls this before it ships the server."""
        if len(run_id) != RUN_ID_BYTES:
            raise ValueError(f"a run id has {RUN_ID_BYTES} octets, not {len(run_id)}")
        self.run_id = run_id
        self.job_group = job_group

    def set_placement(self, placement: Placement) -> None:
        """Where the keys of the data should live. The cluster calls this before it ships the server."""
        self._placement = placement

    # ------------------------------------------------------------------------------------ on the executor

    def __call__(self, ind: int, itr: Iterable[Any], who: Identity | None = None) -> Iterator[Any]:
        """Serves partition ``ind`` until the cluster stops; returns what ``_build_result`` does. Called by Spark.

        Raises:
            ClusterClosed: the cluster is over, or a later attempt has taken the partition over.
            CoordinatorLost: the driver did not answer.
        """
        who = who or identity(ind)
        if self.coordinator_url is None or self.token is None or self.run_id is None:
            raise NotStarted("a partition server runs in a Cluster; use Cluster(sc, rdd, server)")
        if self.job_group is not None and who.job_group != self.job_group:
            # Spark computes this partition again for another job: a block of the result was lost after the stop.
            raise ClusterClosed(
                f"partition {ind} of a stopped cluster is not served again; its cached result was lost. "
                "Call sc.setCheckpointDir() before the cluster starts to keep large results"
            )
        self.partition_ind = ind
        sample = self._placement.sample(ind) if self._placement is not None else None
        self.itr = sample.watch(itr) if sample is not None else itr
        self.host = self._advertised_host()
        self._life = _Life(self, who, sample)
        try:
            self._serve()
            return _iterator(self._build_result())
        finally:
            self._life.close()

    def _serve(self) -> None:
        life = self._life
        try:
            self._launch_server()
        except PortUnavailable as error:
            life.no_server(Code.PORT_UNAVAILABLE, error)
            raise
        except ClusterError:
            raise  # the coordinator knows, or cannot be told
        except (Exception, SystemExit) as error:
            if life.registered:
                life.leave(Code.UNAVAILABLE, _text(error))
            else:
                life.no_server(Code.INIT_FAILED, error)
            raise
        life.leave(Code.OK, "")
        if life.failure is not None:
            raise life.failure

    def _launch_server(self) -> None:
        """Serve. Must call ``self._register()`` once it can answer, and return soon after ``shutdown`` was called."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement _launch_server")

    def _build_result(self) -> Iterable[Any]:
        """Override to return data; it becomes this partition of the result RDD (``cache_result=True``)."""
        return []

    def _register(self) -> None:
        """Tells the coordinator that this partition is served at ``self.host``, ``self.port``, and keeps telling it.

        Raises:
            ClusterClosed: the cluster is stopping, or a later attempt serves this partition.
            CoordinatorLost: no answer within 30 s.
        """
        self._life.register(self._endpoint(), self._local_endpoint())

    def _endpoint(self) -> str:
        """The direct lane's endpoint; empty for a server that has none."""
        return ""

    def _local_endpoint(self) -> str:
        """The direct lane's endpoint for processes on this host; empty for a server that has none."""
        return ""

    def _deliver(self, caller: RelayedCaller, frames: Frames) -> None:
        """Answers a message that was relayed. Called in the thread of the control plane: must not block."""
        caller.refuse(frames, Code.UNIMPLEMENTED, "its server takes no calls (it is no QueryServer)")

    def _relieved(self) -> None:
        """A relayed caller for whom too much waited takes answers again. Called in the same thread."""

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        """Makes ``_launch_server`` return. Called in a thread of its own when the coordinator says SHUTDOWN.

        A server that listens for HTTP itself needs no method of its own: this one sends a POST request to
        ``/control/shutdown`` on its own host and port.

        Args:
            reason: for the log.
            grace: seconds to finish what is under way.
        """
        from http.client import HTTPConnection  # noqa: PLC0415 - only servers with an HTTP server of their own need it

        assert self.token is not None
        connection = HTTPConnection(self.host, self.port, timeout=max(grace, 1.0))  # straight: no proxy of the host's
        try:
            connection.request("POST", "/control/shutdown", b"", {"X-SPS-Token": self.token.hex()})
            connection.getresponse().read()
        finally:
            connection.close()

    # --------------------------------------------------------------------------------- addresses to bind

    def _advertised_host(self) -> str:
        """The option, else this host's address on the route to the driver."""
        if self.options.advertise_host:
            return self.options.advertise_host
        assert self.coordinator_url is not None
        return address_towards(host_of(self.coordinator_url)) or "127.0.0.1"

    def _bind_host(self) -> str:
        """The address to bind."""
        return self.options.bind_host or self.host

    def _ports(self) -> tuple[int, int] | None:
        """The inclusive range of ports to bind in; None: any free port."""
        return self.options.ports if self.port is None else (self.port, self.port)


class _Life:
    """One call of a server: its session with the coordinator, and how it ended.

    Attributes:
        registered: the coordinator said WELCOME.
        door: the endpoint of the relay's door, for members; None: there is none.
        failure: why the server had to end, when it was not asked to.
    """

    def __init__(self, server: PartitionServer, who: Identity, sample: Sample | None) -> None:
        self.server = server
        self.sample = sample
        self.who = who
        # taken before init_partition runs, which may use these names on the server for things of its own
        assert server.token is not None
        assert server.run_id is not None
        assert server.coordinator_url is not None
        self.token, self.run_id, self.coordinator_url = server.token, server.run_id, server.coordinator_url
        self.options, self.host = server.options, server.host
        self.registered = False
        self.door: str | None = None
        self.failure: Exception | None = None
        self._answered = threading.Event()
        self._session: Session | None = None
        self._loop: Loop | None = None
        self._left = False

    def register(self, endpoint: str, local: str) -> None:
        """HELLO, and wait for the answer."""
        self._open(endpoint, local)
        assert self._loop is not None
        session = self._session
        assert session is not None
        self._loop.call(session.start)
        if not self._answered.wait(JOIN_TIMEOUT):
            raise CoordinatorLost(
                f"partition {self.who.rank} on {self.host} got no answer from the coordinator at "
                f"{self.coordinator_url} within {JOIN_TIMEOUT:g} s: executors must be able to connect to it "
                "(docs/deploying.md, 'Addresses')"
            )
        if self.failure is not None:
            raise self.failure

    def no_server(self, code: Code, error: Exception | SystemExit) -> None:
        """Tells the coordinator why there will be no server here. Best effort: the task fails in any case."""
        log.warning("no server partition=%d code=%s error=%r", self.who.rank, code.name, error)
        detail = "".join(traceback.format_exception(error))
        with contextlib.suppress(Exception):
            self._open("", "")
            self.leave(code, _text(error), shorten(detail, DETAIL_CHARS_MAX))

    def leave(self, code: Code, text: str, detail: str = "") -> None:
        """GOODBYE."""
        if self._loop is None or self._left:
            return
        self._left = True
        session = self._session
        assert session is not None
        self._loop.call(lambda now: session.leave(code, text, detail))
        self._loop.stop(LOOP_STOP_TIMEOUT)

    def relays(self) -> bool:
        """Whether parts of answers to relayed calls have yet to leave over the control plane."""
        return self._relayed.waiting

    def close(self) -> None:
        """Ends the session's thread, whatever has happened."""
        if self._loop is not None and not self._loop.stop(LOOP_STOP_TIMEOUT):
            log.error("control thread still runs after %g s partition=%d", LOOP_STOP_TIMEOUT, self.who.rank)

    def _open(self, endpoint: str, local: str) -> None:
        if self._loop is not None:
            return
        who, port = self.who, self.server.port or 0
        meta = self.sample.report() if self.sample is not None else {}
        hello = Hello(
            who.rank, who.incarnation, who.attempt, self.host, port, endpoint, self.token, VERSION, VERSION, meta, local
        )
        self._session = Session(hello, self.options.leave_timeout)
        context, connected = dealer(self.coordinator_url)
        name = f"spark-partition-server-{who.rank}"
        relayed = Relayed(self.run_id, room_for(self.options.message_bytes_max))
        self._relayed = RelayedCalls(relayed, self.server._deliver, self.server._relieved, self._post)
        self._loop = Loop(
            name, context, connected, self._session, self.run_id, self._perform, passing=self._relayed
        )
        self._loop.start()

    def _post(self, command: Callable[[float], list[Effect]]) -> None:
        assert self._loop is not None
        self._loop.call(command)

    def _perform(self, effect: Effect) -> None:
        """In the loop's thread: must not block."""
        if isinstance(effect, Welcomed):
            port = effect.relay_port
            self.door = tcp_endpoint(host_of(self.coordinator_url), port) if port else None
            self.registered = True
            self._answered.set()
        elif isinstance(effect, ShutdownAsked):
            log.info("shutdown partition=%d reason=%s", self.who.rank, effect.reason)
            self._shut_down(effect.reason, effect.grace)
        elif isinstance(effect, Ended) and effect.code is not Code.OK:
            self.failure = _failure(effect, self.who, self.coordinator_url)
            log.warning("ended partition=%d code=%s text=%s", self.who.rank, effect.code.name, effect.text)
            self._answered.set()
            if self.registered:
                self._shut_down(effect.text, 0.0)

    def _shut_down(self, reason: str, grace: float) -> None:
        # not here: heartbeats must go on while a server finishes what is under way
        threading.Thread(target=self._call_shutdown, args=(reason, grace), name="shutdown", daemon=True).start()

    def _call_shutdown(self, reason: str, grace: float) -> None:
        try:
            self.server.shutdown(reason, grace)
        except Exception:
            log.exception("shutdown failed partition=%d", self.who.rank)


def _text(error: BaseException) -> str:
    """For GOODBYE."""
    text = error.reason if isinstance(error, PortUnavailable) else f"{type(error).__name__}: {error}"
    return shorten(text, TEXT_CHARS_MAX - 100)


def _failure(ended: Ended, who: Identity, coordinator: str) -> Exception:
    where = f"partition {who.rank}, attempt {who.attempt} (incarnation {who.incarnation})"
    if ended.code is Code.BAD_TOKEN:
        return AuthenticationError(f"{where}: the coordinator at {coordinator} refused the run token: {ended.text}")
    if ended.code is Code.VERSION:
        return VersionMismatch(VERSION, ended.text)
    if ended.code is Code.UNAVAILABLE:
        return CoordinatorLost(f"{where}: {ended.text}; the server ends")
    return ClusterClosed(f"{where} ends: {ended.text}")


def _iterator(result: Any) -> Iterator[Any]:
    if not isinstance(result, Iterable):
        raise TypeError(f"_build_result must return an iterable, for instance [value], not {type(result).__name__}")
    return iter(result)
