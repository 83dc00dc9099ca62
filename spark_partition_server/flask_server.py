"""``FlaskPartitionServer``: a Flask blueprint on every partition."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .errors import MissingDependency
from .partition_server import PartitionServer
from .thread_utils import GRACE, SHUTDOWN_PATH, THREADS, ServerThread

if TYPE_CHECKING:
    from flask import Blueprint, Flask

__all__ = ["FlaskPartitionServer"]

log = logging.getLogger("spark_partition_server.server")

TOKEN_HEADER = "X-SPS-Token"
WATCH_SECONDS = 1.0  # how often a server that nobody has stopped is looked at

InitPartition = Callable[[Iterable[Any], "Flask", dict[str, Any]], None]


class FlaskPartitionServer(PartitionServer):
    """Serves a Flask blueprint under ``/app`` on every partition.

    ``init_partition(itr, app, config)``, the argument or else a method of a subclass, builds what the views need before
    the server is reachable: from the partition's iterator, the Flask application and the ``config`` given here. The
    application's ``config`` holds ``PARTITION`` (its index), ``HOST``, ``PORT``, ``PARTITION_ITERATOR`` and
    ``PARTITION_SERVER`` (this object).

    ``GET`` or ``POST /control/ping`` answers 200. ``POST /control/shutdown`` ends this partition's server if it carries
    the run's token, as hexadecimal digits in the header ``X-SPS-Token``; without the token the answer is 403.

    Args:
        blueprint: the views; may be made in ``init_partition`` by setting ``self.blueprint``.
        init_partition: called once before serving; what it raises fails the start of the cluster.
        threads: how many requests are handled at the same time. State that views change needs a lock, or ``threads=1``.
        **kwargs: ``port``, ``config`` and ``options`` of ``PartitionServer``.

    Example::

        def init(itr, app, config):
            app.config.update(DATA=list(itr))

        server = FlaskPartitionServer(blueprint=blueprint, init_partition=init)
    """

    def __init__(
        self,
        blueprint: Blueprint | None = None,
        init_partition: InitPartition | None = None,
        *,
        threads: int = THREADS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads!r}")
        self.blueprint = blueprint
        self.threads = threads
        self.app: Flask | None = None
        self.shutdown_callback: Callable[[], Any] | None = None
        self._init_partition_fn = init_partition
        self._stop: threading.Event | None = None
        self._grace = 0.0

    def set_shutdown_callback(self, fn: Callable[[], Any]) -> None:
        """``fn()`` is called on the executor when the server is told to stop, while it still answers."""
        self.shutdown_callback = fn

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        """Makes the server stop: no new connections, ``grace`` seconds for the requests under way."""
        stop = self._stop
        if stop is not None:
            self._grace = grace
            stop.set()

    def _launch_server(self) -> None:
        """Serves until ``shutdown``.

        Raises:
            MissingDependency: this Python has no Flask or no waitress.
            PortUnavailable: no port could be bound.
            Exception: whatever ``init_partition`` or the shutdown callback raised.
        """
        self._stop = stop = threading.Event()
        try:
            import flask  # noqa: PLC0415 - of the flask extra

            self.app = app = flask.Flask(f"FlaskPartitionServer{self.partition_ind}")
            http = ServerThread(
                app,
                host=self._bind_host(),
                ports=self._ports(),
                threads=self.threads,
                connections_max=self.options.connections_max,
                request_bytes_max=self.options.message_bytes_max,
            )
        except ImportError as error:
            raise MissingDependency(error.name or "flask") from error
        try:
            self.port = http.bind()  # before init_partition, which may want to tell others
            self._build_app(app)
            http.start()
            self._register()
            while http.is_alive() and not stop.wait(WATCH_SECONDS):
                pass
            if stop.is_set() and self.shutdown_callback is not None:
                self.shutdown_callback()
        finally:
            self._stop = None
            http.shutdown(self._grace)
        if http.error is not None:
            raise RuntimeError(f"the HTTP server of partition {self.partition_ind} failed") from http.error

    def _build_app(self, app: Flask) -> None:
        """Everything between an empty application and one that serves, in the order that user code relies on."""
        app.config.update(
            PARTITION=self.partition_ind,
            HOST=self.host,
            PORT=self.port,
            PARTITION_ITERATOR=self.itr,
            PARTITION_SERVER=self,
        )
        init: InitPartition | None = self._init_partition_fn or getattr(self, "init_partition", None)
        if init is not None:
            init(self.itr, app, self.config)
        if self.blueprint is not None:
            app.register_blueprint(self.blueprint, url_prefix="/app")
        # Endpoint names that no view function of the user's can have by accident.
        app.add_url_rule(SHUTDOWN_PATH, "__control_shutdown__", self._answer_shutdown, methods=["POST"])
        app.add_url_rule("/control/ping", "__control_ping__", lambda: "", methods=["GET", "POST"])

    def _answer_shutdown(self) -> tuple[str, int]:
        from flask import request  # noqa: PLC0415 - of the flask extra

        given = request.headers.get(TOKEN_HEADER, "").lower().encode("utf-8", "surrogateescape")
        if not self.token or not hmac.compare_digest(given, self.token.hex().encode()):
            return "this request needs the run's token\n", 403
        log.info("shutdown partition=%d reason=asked over HTTP", self.partition_ind)
        self.shutdown("asked over HTTP", GRACE)
        return "the server shuts down\n", 200
