"""``ServerThread``: a WSGI or Flask application on a production server, in a thread of its own.

The server is waitress: benchmarks/README.md, "WSGI servers", says why. Its loop reads requests without occupying a
thread, so that clients that say nothing cost nothing; whole requests go to a few handler threads. waitress has no way
to stop that other threads may use, so the loop is turned here and the handler threads are ours: ``shutdown`` can finish
what is under way, close every connection and join every thread.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from .net.clock import monotonic
from .net.endpoints import bind_tcp, get_host, is_loopback, is_wildcard

__all__ = ["ServerThread"]

log = logging.getLogger("spark_partition_server.http")

SHUTDOWN_PATH = "/control/shutdown"
THREADS = 8
CONNECTIONS_MAX = 4096
REQUEST_BYTES_MAX = 256 * 1024 * 1024
GRACE = 1.0  # seconds that requests under way get when nobody says otherwise
LOOP_SECONDS = 1.0  # the longest sleep of the loop; only waitress's own housekeeping waits for it
DRAIN_SECONDS = 0.05  # the same while requests under way are waited for
JOIN_SECONDS = 0.2  # what handler threads get to leave after their connections have been closed

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ServerThread(threading.Thread):
    """Serves a WSGI application until ``shutdown``.

    The port is bound once and stays bound. ``POST /control/shutdown`` from this host stops the server; an application
    with a ``url_map`` (Flask) that has such a route keeps its own, and other WSGI applications are served as they are.

    Args:
        app: a Flask application or any WSGI callable. It is not changed.
        port: the port to bind; default: any free one.
        host: the address to bind; default: every IPv4 address of this host.
        ports: an inclusive range to bind in, instead of ``port``.
        threads: how many requests are handled at the same time.
        connections_max: connections at one time; more wait in the kernel's queue.
        request_bytes_max: the largest request body; a larger one is answered with 413.

    Attributes:
        app: as given.
        host: the address to tell others: ``host``, or this host's name where every address is bound.
        port: the bound port; None before ``bind`` or ``start`` unless one was given.
        error: what ended the loop although nobody had asked for it.

    Raises:
        ImportError: waitress is not installed.
    """

    def __init__(
        self,
        app: Any,
        port: int | None = None,
        host: str | None = None,
        *,
        ports: tuple[int, int] | None = None,
        threads: int = THREADS,
        connections_max: int = CONNECTIONS_MAX,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        _waitress()
        super().__init__(name="spark-partition-server-http", daemon=True)
        self.app = app
        self.port = port
        self.error: BaseException | None = None
        self._bind_host = host or "0.0.0.0"
        self.host = get_host() if is_wildcard(self._bind_host) else self._bind_host
        self._ports = ports if port is None else (port, port)
        # waitress refuses a body that has as many octets as its limit says
        self._limits = {"connection_limit": connections_max, "max_request_body_size": request_bytes_max + 1}
        self._listening: socket.socket | None = None
        self._server: Any = None
        self._map: dict[int, Any] = {}
        self._handlers = _Handlers(threads, self.name)
        self._lock = threading.Lock()  # guards _server, while it comes and goes, and _asked
        self._asked = False
        self._grace = GRACE

    def bind(self) -> int:
        """Binds the port, where that has not happened yet, and returns it. Clients that connect wait for ``start``.

        Raises:
            PortUnavailable: the port, or every port of the range, is taken.
        """
        if self._listening is None:
            self._listening = bind_tcp(self._bind_host, self._ports)
            self.port = self._listening.getsockname()[1]
        assert self.port is not None
        return self.port

    def start(self) -> None:
        """Binds where that has not happened yet, and serves. The socket accepts when this returns.

        Raises:
            PortUnavailable: the port, or every port of the range, is taken.
            RuntimeError: it was started before, or has been shut down: a thread starts once.
        """
        if self.ident is not None:
            raise RuntimeError("this server was started before; make a new ServerThread")
        self._open()
        try:
            super().start()
        except BaseException:  # no thread to be had
            self._close()
            raise

    def run(self) -> None:
        """Serves until ``shutdown``; called in the thread that ``start`` makes, or directly to serve in this one."""
        from waitress import wasyncore  # noqa: PLC0415 - of the flask extra

        self._open()
        try:
            while not self._asked:
                wasyncore.loop(timeout=LOOP_SECONDS, use_poll=True, map=self._map, count=1)
        except Exception as error:
            self.error = error
            log.exception("the loop of %s failed", self.get_url())
        finally:
            self._close()

    def shutdown(self, grace: float = GRACE) -> None:
        """Stops serving and waits until the thread has ended and the socket is closed. May be called again.

        New connections are refused at once, idle ones are closed, requests under way get ``grace`` seconds. In a
        request's own handler it asks only, because the handler is what would be waited for.
        """
        with self._lock:
            self._grace = grace if not self._asked else min(grace, self._grace)
            self._asked = True
            if self._server is not None:
                self._server.pull_trigger()
            elif self._listening is not None:
                self._listening.close()
        if self.is_alive() and threading.current_thread() not in (self, *self._handlers.threads):
            self.join(grace + LOOP_SECONDS + JOIN_SECONDS)

    def get_url(self) -> str | None:
        """``http://host:port``, or None while there is no port."""
        if self.port is None:
            return None
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    # ------------------------------------------------------------------------------------------- inside

    def _open(self) -> None:
        """Makes the server round the bound socket, once."""
        create_server = _waitress()
        with self._lock:
            if self._server is not None:
                return
            if self._asked:
                raise RuntimeError("this server was shut down; make a new ServerThread")
            self.bind()
            server = create_server(
                self._front(),
                map=self._map,
                sockets=[self._listening],
                threads=0,
                asyncore_use_poll=True,
                **self._limits,
            )
            server.task_dispatcher = self._handlers
            self._server = server
        try:
            self._handlers.start()
        except BaseException:
            self._close()
            raise

    def _front(self) -> WSGI:
        """The application, with the shutdown route before it where it has none."""
        app: WSGI = self.app
        rules = getattr(app, "url_map", None)
        if rules is None or any(
            rule.rule == SHUTDOWN_PATH and (not rule.methods or "POST" in rule.methods) for rule in rules.iter_rules()
        ):
            return app

        def front(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] != SHUTDOWN_PATH or environ["REQUEST_METHOD"] != "POST":
                return app(environ, start_response)
            status, text = "403 Forbidden", b"only this host may stop the server\n"
            if _is_this_host(environ["REMOTE_ADDR"]):
                status, text = "200 OK", b"the server shuts down\n"
                self.shutdown()
            start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
            return [text]

        return front

    def _close(self) -> None:
        """The end of the loop: finish what is under way, then close everything. In the loop's thread."""
        from waitress import wasyncore  # noqa: PLC0415 - of the flask extra

        deadline = monotonic() + self._grace
        server = self._server
        try:
            if self.error is None:
                wasyncore.loop(timeout=0, use_poll=True, map=self._map, count=1)  # what has arrived counts as under way
                server.del_channel()
                self._listening.close()  # type: ignore[union-attr]  # bound since _open
                self._drain(server, deadline)
        finally:
            for channel in list(server.active_channels.values()):
                channel.handle_close()  # also wakes a handler that waits for its client to read
            busy = self._handlers.stop(JOIN_SECONDS)
            if busy:
                log.warning("%s: %d handler(s) still busy after the grace period", self.get_url(), busy)
            with self._lock:
                # a handler that returns later must not write to a closed, or by then somebody else's, descriptor
                server.pull_trigger = _nothing
                self._server = None
                wasyncore.close_all(self._map)

    def _drain(self, server: Any, deadline: float) -> None:
        """Turns the loop until no connection is left: each is closed when it has no request and no octets waiting."""
        from waitress import wasyncore  # noqa: PLC0415 - of the flask extra

        while server.active_channels and monotonic() < deadline:
            for channel in list(server.active_channels.values()):
                if not channel.requests:
                    channel.close_when_flushed = True
            wasyncore.loop(timeout=DRAIN_SECONDS, use_poll=True, map=self._map, count=1)


class _Handlers:
    """The threads that run the application; to waitress, its task dispatcher.

    waitress's own warns in the log of every request that finds all threads at work, and keeps its threads to itself.
    """

    def __init__(self, count: int, name: str) -> None:
        if count < 1:
            raise ValueError(f"threads must be at least 1, got {count!r}")
        self.threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count = count
        self._name = name

    def start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def add_task(self, task: Any) -> None:
        """Called by waitress with a connection that has a whole request."""
        self._queue.put(task)

    def stop(self, timeout: float) -> int:
        """Lets every thread leave after its request, waits at most ``timeout`` seconds; returns how many are left."""
        for _ in self.threads:
            self._queue.put(None)
        deadline = monotonic() + timeout
        for thread in self.threads:
            thread.join(max(deadline - monotonic(), 0.0))
        return sum(thread.is_alive() for thread in self.threads)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                task.service()
            except BaseException:
                # waitress handles every Exception; this is a SystemExit or the like. Without the next lines the client
                # would wait for ever and the thread would be gone.
                log.exception("a request handler tried to end its thread")
                task.cancel()
                task.server.pull_trigger()


def _waitress() -> Callable[..., Any]:
    """``waitress.create_server``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from waitress import create_server  # noqa: PLC0415 - of the flask extra
    except ImportError as error:
        raise ImportError(
            f'HTTP servers need a package that is missing ({error}): pip install "spark-partition-server[flask]"',
            name=error.name,
        ) from error
    found: Callable[..., Any] = create_server
    return found


def _is_this_host(address: str) -> bool:
    """Whether ``address`` is one of this host's own: only those can be bound."""
    if is_loopback(address):
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _nothing() -> None:
    """Stands in for a trigger that is gone."""
