"""Which WSGI server should carry ``FlaskPartitionServer``: waitress or cheroot?

One small Flask application (a request of about 50 octets, a reply of about 100) on 127.0.0.1, each server in a process
of its own, the variants taken in turn within every round of one run. Expectation written before the first run: Flask
itself costs about 100 us a request, a worker thread's hand-over 30 to 100 us, and the servers differ by less than a
factor of two; what sets them apart is how they stop and what a silent client costs them.

    python benchmarks/wsgi.py [--rounds 10] [--requests 1000] [--json FILE]

Needs cheroot and waitress. Werkzeug's development server is a reference only: its own manual says not to deploy it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import random
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cheroot.wsgi
import flask
import waitress
import werkzeug.serving
import werkzeug.test

from spark_partition_server.thread_utils import ServerThread

VARIANTS = ("waitress", "cheroot", "ServerThread", "werkzeug")
THREADS = 8
CLIENTS = 8
REQUEST = b"GET /item?key=alice HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW_SECONDS = 0.3


def make_app() -> Any:
    app = flask.Flask("bench")
    table = {"alice": "x" * 100}

    @app.route("/item")
    def item() -> str:
        return table[flask.request.args["key"]]

    @app.route("/slow")
    def slow() -> str:
        time.sleep(SLOW_SECONDS)
        return "x" * 100

    return app


# ------------------------------------------------------------------------------------- the server process


class Waitress:
    """A socket bound by us; the stop is a thunk that waitress's own loop runs."""

    def __init__(self, app: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server = waitress.create_server(app, sockets=[listener], threads=THREADS, asyncore_use_poll=True)
        # By default every request that finds all threads at work costs a warning on stderr.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        server = self.server
        server.trigger.pull_trigger(lambda: setattr(server, "accepting", False))
        server.task_dispatcher.shutdown(timeout=1)
        server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(server._map))
        self.thread.join()


class Cheroot:
    """``prepare()`` binds port 0 and listens, ``serve()`` is the loop, ``stop()`` is its documented end."""

    def __init__(self, app: Any) -> None:
        self.server = cheroot.wsgi.Server(
            ("127.0.0.1", 0), app, numthreads=THREADS, request_queue_size=128, shutdown_timeout=1
        )
        self.server.keep_alive_conn_limit = None
        self.server.prepare()
        self.port = self.server.bind_addr[1]
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join()


class Ours:
    """What the library makes of waitress: its own stop and its own handler threads."""

    def __init__(self, app: Any) -> None:
        self.server = ServerThread(app, host="127.0.0.1", threads=THREADS)
        self.server.start()
        self.port = self.server.port
        self.stop = self.server.shutdown


class Werkzeug:
    """The development server. It closes the connection after every reply."""

    def __init__(self, app: Any) -> None:
        class Handler(werkzeug.serving.WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
        self.port = self.server.port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def open_sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def serve(name: str) -> None:
    """Run one server; a line on stdin stops it. Reports on stdout, one JSON object a line."""
    app = make_app()
    kind: Callable[[Any], Any] = dict(zip(VARIANTS, (Waitress, Cheroot, Ours, Werkzeug), strict=True))[name]
    threads, sockets = set(threading.enumerate()), open_sockets()
    began = time.perf_counter()
    server = kind(app)
    with socket.create_connection(("127.0.0.1", server.port)) as first:
        exchange(first, REQUEST)
        start = time.perf_counter() - began
    print(json.dumps({"port": server.port, "start_ms": start * 1e3}), flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    server.stop()
    stop = time.perf_counter() - began
    left = [thread for thread in threading.enumerate() if thread not in threads]
    report = {"stop_ms": stop * 1e3, "threads_left": len(left), "sockets_left": open_sockets() - sockets}
    print(json.dumps(report), flush=True)
    os._exit(0)


class Child:
    """A server in a process of its own."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, __file__, "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self.report()

    def report(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.hello["port"]), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def stop(self) -> dict[str, Any]:
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        report = self.report()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return report


# --------------------------------------------------------------------------------------------- the client


def complete(data: bytes) -> bool:
    """Whether ``data`` holds a whole reply with a Content-Length."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = data.lower().index(b"content-length:") + 15
    return len(data) >= head + 4 + int(data[at : data.index(b"\r\n", at)])


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """One request and its reply, over a bare socket so that the client costs next to nothing."""
    connection.sendall(request)
    data = connection.recv(65536)
    while not complete(data):
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("closed before the reply was whole")
        data += more
    return data


def closes(reply: bytes) -> bool:
    return b"\nConnection: close\r" in reply


def one_client(child: Child, requests: int) -> list[float]:
    """Latencies in microseconds of one keep-alive connection, one request at a time.

    Where the server closes after each reply, the new connection that the next request needs is part of its latency.
    """
    clock, times = time.perf_counter_ns, []
    connection = child.connect()
    again = closes(exchange(connection, REQUEST))
    for _ in range(requests):
        began = clock()
        if again:
            connection.close()
            connection = child.connect()
        exchange(connection, REQUEST)
        times.append((clock() - began) / 1e3)
    connection.close()
    return times[requests // 20 :]


def many_clients(child: Child, requests: int) -> tuple[list[float], float]:
    """Latencies (us) and requests per second of CLIENTS connections, each with one request in flight, from one loop."""
    clock, times = time.perf_counter_ns, []
    with selectors.DefaultSelector() as selector:

        def send(connection: socket.socket, reply: bytes) -> None:
            """The next request; ``reply`` is what came for the last one."""
            began = clock()
            if closes(reply):
                selector.unregister(connection)
                connection.close()
                connection = child.connect()
                selector.register(connection, selectors.EVENT_READ)
            connection.sendall(REQUEST)
            flying[connection] = (began, b"")

        flying: dict[socket.socket, tuple[int, bytes]] = {}
        began = clock()
        for _ in range(CLIENTS):
            connection = child.connect()
            selector.register(connection, selectors.EVENT_READ)
            send(connection, b"")
        while flying:
            for key, _ in selector.select():
                connection = key.fileobj
                sent, data = flying[connection]
                data += connection.recv(65536)
                if not complete(data):
                    flying[connection] = (sent, data)
                    continue
                times.append((clock() - sent) / 1e3)
                del flying[connection]
                if len(times) + len(flying) < requests:
                    send(connection, data)
                else:
                    selector.unregister(connection)
                    connection.close()
        return times, len(times) * 1e9 / (clock() - began)


# ------------------------------------------------------------------------------------------- what is asked


def measure_speed(rounds: int, requests: int) -> dict[str, dict[str, float]]:
    children = {name: Child(name) for name in VARIANTS}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name in random.sample(VARIANTS, len(VARIANTS)):
            single = sorted(one_client(children[name], requests))
            times, rate = many_clients(children[name], 2 * requests)
            times.sort()
            row = {
                "one_p50_us": single[len(single) // 2],
                "one_p99_us": single[len(single) * 99 // 100],
                "one_rps": 1e6 / statistics.fmean(single),
                "eight_p50_us": times[len(times) // 2],
                "eight_p99_us": times[len(times) * 99 // 100],
                "eight_rps": rate,
            }
            found[name].append(row)
    for child in children.values():
        child.stop()
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def stop_with(name: str, clients: str) -> dict[str, Any]:
    """Start a server, open ``clients`` ("idle keep-alive", "silent", "in flight"), stop it, report."""
    child = Child(name)
    with child.connect() as connection, child.connect() as other:
        exchange(connection, REQUEST)
        exchange(other, REQUEST)
        silent = child.connect() if clients == "silent" else None
        if clients == "in flight":
            connection.sendall(SLOW)
            time.sleep(SLOW_SECONDS / 3)
        elif silent is not None:
            time.sleep(0.1)  # let the server accept it
        report = {**child.hello, **child.stop()}
        if clients == "in flight":
            with contextlib.suppress(OSError):
                report["answered"] = complete(connection.recv(65536))
        if silent is not None:
            silent.close()
    return report


def stall(name: str) -> float:
    """Milliseconds until a newcomer is answered while as many clients as there are threads say nothing."""
    child = Child(name)
    silent = [child.connect() for _ in range(THREADS)]
    time.sleep(0.2)
    began = time.perf_counter()
    exchange(child.connect(), REQUEST)
    waited = (time.perf_counter() - began) * 1e3
    del silent
    child.stop()
    return waited


def measure_life(repeats: int) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name in VARIANTS:
        reports = {
            kind: [stop_with(name, kind) for _ in range(repeats)] for kind in ("idle keep-alive", "silent", "in flight")
        }
        everything = [report for group in reports.values() for report in group]
        rows[name] = {
            "start_ms": statistics.median(report["start_ms"] for report in everything),
            "stop_idle_ms": statistics.median(report["stop_ms"] for report in reports["idle keep-alive"]),
            "stop_silent_ms": statistics.median(report["stop_ms"] for report in reports["silent"]),
            "stop_in_flight_ms": statistics.median(report["stop_ms"] for report in reports["in flight"]),
            "in_flight_answered": all(report.get("answered") for report in reports["in flight"]),
            "threads_left": max(report["threads_left"] for report in everything),
            "sockets_left": max(report["sockets_left"] for report in everything),
            "stalled_ms": stall(name),
        }
    return rows


def flask_alone(requests: int) -> float:
    """Median microseconds of the application called directly: what no server can save."""
    app, times = make_app(), []
    for _ in range(requests):
        environ = werkzeug.test.EnvironBuilder(path="/item", query_string="key=alice").get_environ()
        began = time.perf_counter_ns()
        b"".join(app(environ, lambda status, headers: None))
        times.append((time.perf_counter_ns() - began) / 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=1000, help="requests of the single client in each round")
    parser.add_argument("--repeats", type=int, default=5, help="how often each way to stop is tried")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    alone = flask_alone(2000)
    speed = measure_speed(options.rounds, options.requests)
    life = measure_life(options.repeats)
    results = {name: {**speed[name], **life[name]} for name in VARIANTS}
    table(results, alone)
    if options.json:
        document = {"flask_alone_us": alone, "threads": THREADS, "results": results}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def table(results: dict[str, dict[str, Any]], alone: float) -> None:
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, ", end="")
    print(f"{THREADS} server threads; the Flask application alone: {alone:.0f} us\n")
    print("| " + " | ".join(("", *VARIANTS, "waitress / cheroot")) + " |\n|---|" + "---:|" * (len(VARIANTS) + 1))
    for key in results[VARIANTS[0]]:
        values = [results[name][key] for name in VARIANTS]
        ratio = f"{values[0] / values[1]:.2f}" if key.endswith(("_us", "_ms", "_rps")) else ""
        cells = [str(value) if isinstance(value, (bool, int)) else f"{value:,.1f}" for value in values]
        print(f"| {key} | " + " | ".join(cells) + f" | {ratio} |")


if __name__ == "__main__":
    main()
