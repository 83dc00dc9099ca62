"""``ServerThread``: a port that stays ours, a stop that always ends, and nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from support.wait import wait_until
from support.web import LOCAL, LONG, ask, ended, in_thread, read_all, refuses

from spark_partition_server.errors import PortUnavailable
from spark_partition_server.net.endpoints import get_host
from spark_partition_server.thread_utils import ServerThread

FOREVER = 600.0  # seconds of grace: what waits for the end of it is seen
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A plain WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@contextlib.contextmanager
def running(app: Any = hello, **options: Any) -> Iterator[ServerThread]:
    server = ServerThread(app, host=LOCAL, **options)
    server.start()
    try:
        yield server
    finally:
        server.shutdown()


@contextlib.contextmanager
def connected(server: ServerThread) -> Iterator[socket.socket]:
    with socket.create_connection((LOCAL, server.bind()), timeout=LONG) as connection:
        yield connection


class Held:
    """An application whose request waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.entered.set()
        self.go.wait(LONG)
        return hello(environ, start_response)


# ------------------------------------------------------------------------------------------- start and port


def test_start_returns_when_the_socket_accepts() -> None:
    # failure: a client that connects right after start() is refused because the bind still lies ahead
    for _ in range(10):
        with running() as server:
            assert ask(server.bind()) == (200, "hello")


def test_a_bound_port_stays_ours_until_shutdown() -> None:
    # failure: pick-close-rebind, and somebody else takes the port in between
    server = ServerThread(hello, host=LOCAL)
    port = server.bind()
    for _ in range(2):
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind((LOCAL, port))
        if not server.is_alive():
            server.start()
            assert server.bind() == server.port == port
    server.shutdown()
    assert refuses(port)


def test_a_taken_port_is_a_typed_error_with_its_number() -> None:
    # failure: an OSError in a background thread that nobody sees
    with socket.create_server((LOCAL, 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerThread(hello, port=port, host=LOCAL)
        with pytest.raises(PortUnavailable, match=str(port)) as caught:
            server.start()
        assert caught.value.ports == (port, port)
        server.shutdown()


def test_a_range_skips_ports_that_are_taken() -> None:
    # failure: the first port of the range decides
    with socket.create_server((LOCAL, 0)) as taken:
        first = taken.getsockname()[1]
        with running(ports=(first, min(first + 50, 65535))) as server:
            assert server.bind() > first
            assert ask(server.bind()) == (200, "hello")


def test_url_and_host_as_the_original_had_them() -> None:
    # failure: a URL with port None, or one that names the wildcard address
    server = ServerThread(hello)
    assert (server.port, server.get_url(), server.host) == (None, None, get_host())
    assert ServerThread(hello, 8080, "::1").get_url() == "http://[::1]:8080"
    with running() as live:
        assert live.get_url() == f"http://{LOCAL}:{live.port}"


def test_a_thread_starts_once() -> None:
    # failure: a second start() breaks the server that runs
    with running() as server:
        with pytest.raises(RuntimeError, match="new ServerThread"):
            server.start()
        assert ask(server.bind()) == (200, "hello")
    with pytest.raises(RuntimeError, match="new ServerThread"):
        server.start()
    idle = ServerThread(hello, host=LOCAL)
    port = idle.bind()
    idle.shutdown()
    assert refuses(port)
    with pytest.raises(RuntimeError, match="new ServerThread"):
        idle.start()


def test_run_serves_in_the_calling_thread() -> None:
    # failure: run() works only after start()
    server = ServerThread(hello, host=LOCAL)
    server.bind()
    thread = in_thread(server.run)
    assert ask(server.bind()) == (200, "hello")
    server.shutdown()
    assert ended(thread)


# ------------------------------------------------------------------------------------------------- shutdown


@pytest.mark.parametrize("sent", [b"", b"GET / HT", REQUEST], ids=["silent", "half a request", "idle keep-alive"])
def test_shutdown_closes_clients_that_have_nothing_under_way(sent: bytes) -> None:
    # failure: shutdown waits for clients that keep their connection
    with running() as server, connected(server) as connection:
        connection.sendall(sent)
        if sent == REQUEST:
            reply = b""
            while not reply.endswith(b"hello"):
                reply += connection.recv(4096)
        else:
            ask(server.bind())  # by now the loop has seen the connection
        assert ended(in_thread(server.shutdown, FOREVER))
        assert read_all(connection) == b""
        assert not server.is_alive()
        assert refuses(server.bind())


def test_shutdown_is_idempotent_and_may_be_called_from_many_threads() -> None:
    # failure: the second call raises, or writes to a descriptor that is closed
    with running() as server:
        callers = [in_thread(server.shutdown) for _ in range(8)]
        assert all(ended(caller) for caller in callers)
        server.shutdown()
        assert server.error is None


def test_a_request_under_way_is_answered() -> None:
    # failure: shutdown cuts off a client that has been promised an answer
    app = Held()
    with running(app) as server, connected(server) as connection:
        connection.sendall(REQUEST)
        assert app.entered.wait(LONG)
        stopping = in_thread(server.shutdown, FOREVER)
        wait_until(lambda: refuses(server.bind()), what="new connections to be refused")
        assert stopping.is_alive()
        app.go.set()
        assert read_all(connection).endswith(b"hello")
        assert ended(stopping)


def test_requests_that_wait_for_a_handler_are_answered_too() -> None:
    # failure: only the requests that a thread has taken up count as under way
    app = Held()
    with running(app, threads=1) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(4)]
        for connection in connections:
            connection.sendall(REQUEST)
        assert app.entered.wait(LONG)
        wait_until(lambda: len(server._server.active_channels) == 4, what="four connections")
        stopping = in_thread(server.shutdown, FOREVER)
        wait_until(lambda: refuses(server.bind()), what="new connections to be refused")
        app.go.set()
        assert [read_all(connection)[-5:] for connection in connections] == [b"hello"] * 4
        assert ended(stopping)


def test_a_handler_that_does_not_end_cannot_hold_up_shutdown() -> None:
    # failure: shutdown joins a handler that never comes back
    app = Held()
    with running(app) as server, connected(server) as connection:
        connection.sendall(REQUEST)
        assert app.entered.wait(LONG)
        assert ended(in_thread(server.shutdown, 0.05))
        assert not server.is_alive()
        assert read_all(connection) == b""
        app.go.set()  # and when it does come back, its thread ends: the fixture looks


def test_a_long_reply_is_finished_within_the_grace() -> None:
    # failure: what the kernel has not taken yet is lost when the server stops
    body = os.urandom(1 << 20) * 12

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    with running(app) as server, connected(server) as connection:
        connection.sendall(REQUEST)
        head = connection.recv(1000)
        stopping = in_thread(server.shutdown, FOREVER)
        wait_until(lambda: refuses(server.bind()), what="new connections to be refused")
        assert (head + read_all(connection)).endswith(body)
        assert ended(stopping)


def test_a_client_that_does_not_read_cannot_hold_up_shutdown() -> None:
    # failure: the handler waits for ever for room in the buffers of a client that has stopped reading
    piece = bytes(1 << 20)
    sent = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        while True:
            sent.append(1)
            yield piece

    with running(app) as server, connected(server) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: len(sent) > 16, what="the buffers to fill up")
        assert ended(in_thread(server.shutdown, 0.05))
        assert not server.is_alive()


def test_after_shutdown_nothing_holds_the_application() -> None:
    # failure: a Spark worker that is used again keeps the partition of every server it has ever run
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return hello(environ, start_response)

    held = weakref.ref(app)
    with running(app) as server:
        assert ask(server.bind()) == (200, "hello")
    del app, server
    gc.collect()
    assert held() is None


def test_shutdown_in_a_handler_does_not_wait_for_itself() -> None:
    # failure: the handler joins the thread that waits for the handler
    servers: list[ServerThread] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        servers[0].shutdown(FOREVER)
        return hello(environ, start_response)

    with running(app) as server:
        servers.append(server)
        assert ask(server.bind()) == (200, "hello")
        assert ended(server)


# ----------------------------------------------------------------------------------------- /control/shutdown


def make_flask() -> flask.Flask:
    app = flask.Flask("test")
    app.add_url_rule("/", "index", lambda: "hello")
    return app


def test_the_shutdown_route_stops_the_server_that_was_asked() -> None:
    # failure: two servers of one application, and the route stops the wrong one; or the route changes the application
    app = make_flask()
    rules = [str(rule) for rule in app.url_map.iter_rules()]
    with running(app) as first, running(app) as second:
        assert ask(first.bind())[0] == ask(second.bind())[0] == 200  # an application that has served takes no new rules
        assert ask(second.bind(), "/control/shutdown", "GET")[0] == 404
        assert ask(second.bind(), "/control/shutdown", "POST") == (200, "the server shuts down\n")
        assert ended(second)
        assert ask(first.bind()) == (200, "hello")
    assert [str(rule) for rule in app.url_map.iter_rules()] == rules


def test_the_shutdown_route_of_the_application_is_kept() -> None:
    # failure: a route that checks who asks is replaced by one that does not
    app = make_flask()
    app.add_url_rule("/control/shutdown", "own", lambda: ("no", 403), methods=["POST"])
    with running(app) as server:
        assert ask(server.bind(), "/control/shutdown", "POST") == (403, "no")
        assert server.is_alive()
    with running() as plain:  # nobody can tell what a plain WSGI callable serves there
        assert ask(plain.bind(), "/control/shutdown", "POST") == (200, "hello")
        assert plain.is_alive()


def test_only_this_host_may_use_the_shutdown_route() -> None:
    # failure: whoever reaches the port stops the server. 192.0.2.1 is reserved: it is no host's address.
    server = ServerThread(make_flask(), host=LOCAL)
    answers: list[str] = []
    environ = {"PATH_INFO": "/control/shutdown", "REQUEST_METHOD": "POST", "REMOTE_ADDR": "192.0.2.1"}
    server._front()(environ, lambda status, headers: answers.append(status))
    assert answers == ["403 Forbidden"]
    assert not server._asked
    server._front()({**environ, "REMOTE_ADDR": LOCAL}, lambda status, headers: answers.append(status))
    assert answers[1] == "200 OK"
    assert server._asked


# ---------------------------------------------------------------------------------------------- robustness


def test_silent_clients_do_not_occupy_threads() -> None:
    # failure: as many connections as threads, none of which says anything, and nobody else is served
    with running(threads=2) as server, contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(server))
        assert ask(server.bind()) == (200, "hello")


def test_a_handler_that_exits_costs_its_connection_only() -> None:
    # failure: SystemExit ends the only thread, and this client and all others wait for ever
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/exit":
            sys.exit(1)
        return hello(environ, start_response)

    with running(app, threads=1) as server:
        with connected(server) as connection:
            connection.sendall(REQUEST.replace(b"/ ", b"/exit ", 1))
            assert read_all(connection) == b""
        assert ask(server.bind()) == (200, "hello")


def test_a_handler_that_raises_is_an_error_500() -> None:
    # failure: the exception ends a thread, or its text reaches the client
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("a secret")

    with running(app, threads=1) as server:
        for _ in range(2):
            status, body = ask(server.bind())
            assert status == 500
            assert "secret" not in body


def test_garbage_and_oversized_requests_are_refused() -> None:
    # failure: foreign bytes disturb the loop, or a body of any size is taken in
    with running(request_bytes_max=1000) as server:
        with connected(server) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00 not http\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.0 400")
        assert ask(server.bind(), "/", "POST", bytes(1000)) == (200, "hello")
        assert ask(server.bind(), "/", "POST", bytes(1001))[0] == 413


def test_a_failed_loop_is_seen_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # failure: the loop dies, and the owner believes that the server still serves
    import waitress.wasyncore

    def broken(**options: Any) -> None:
        raise OSError("out of descriptors")

    with running() as server:
        monkeypatch.setattr(waitress.wasyncore, "loop", broken)
        server._server.pull_trigger()
        assert ended(server)
        assert isinstance(server.error, OSError)
        assert refuses(server.bind())


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # failure: "No module named waitress", and nobody knows what to install
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(ImportError, match=r'pip install "spark-partition-server\[flask\]"'):
        ServerThread(hello)


@pytest.mark.parametrize("module", ["thread_utils", "flask_server"])
def test_importing_the_module_imports_neither_flask_nor_waitress(module: str) -> None:
    # failure: a client without the flask extra cannot import the package
    code = (
        f"import sys, spark_partition_server.{module}\n"
        "sys.exit(', '.join({'flask', 'waitress', 'werkzeug'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
