"""``FlaskPartitionServer`` over real HTTP on loopback, without a cluster: the test stands in for the coordinator."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import flask
import pytest
from support.wait import wait_until
from support.web import LOCAL, LONG, ask, ended, in_thread, refuses

from spark_partition_server.errors import MissingDependency, PortUnavailable
from spark_partition_server.flask_server import FlaskPartitionServer
from spark_partition_server.options import ServerOptions
from spark_partition_server.thread_utils import ServerThread

TOKEN = bytes(range(240, 256))
SHUTDOWN = "/control/shutdown"


class Recording(FlaskPartitionServer):
    """Writes down what it would have told the coordinator."""

    registered: list[tuple[str, int]]
    at_register: Callable[[], Any] | None = None

    def _register(self) -> None:
        assert self.port is not None
        if self.at_register is not None:
            self.at_register()
        self.registered.append((self.host, self.port))


class Launch:
    """One launch of a server in a thread, with everything set that Spark's call would set."""

    def __init__(self, server: Any, rows: Iterable[Any] = (), partition: int = 3) -> None:
        server.registered = []
        server.partition_ind, server.itr = partition, iter(rows)
        server.host, server.token = LOCAL, TOKEN
        self.server = server
        self.error: BaseException | None = None
        self.thread = in_thread(self._run)

    def _run(self) -> None:
        try:
            self.server._launch_server()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def ready(self) -> Launch:
        wait_until(lambda: self.server.registered or not self.thread.is_alive(), LONG, "the server to register")
        if self.error is not None:
            raise self.error
        return self

    def failure(self) -> BaseException | None:
        assert ended(self.thread)
        return self.error

    def ask(self, path: str, method: str = "GET", token: str | None = None) -> tuple[int, str]:
        return ask(self.server.port, path, method, headers={} if token is None else {"X-SPS-Token": token})


@contextlib.contextmanager
def launched(server: Any, rows: Iterable[Any] = (), partition: int = 3) -> Iterator[Launch]:
    launch = Launch(server, rows, partition)
    try:
        yield launch.ready()
    finally:
        server.shutdown("end of the test", LONG)
        assert launch.failure() is None


def concat_blueprint() -> flask.Blueprint:
    """The function form of the original's README."""
    blueprint = flask.Blueprint("app", __name__)

    @blueprint.route("/concat")
    def concat() -> str:
        from flask import current_app

        return ",".join(map(str, current_app.config["DATA"]))

    return blueprint


def keep_data(itr: Iterable[Any], app: flask.Flask, config: dict[str, Any]) -> None:
    app.config.update(DATA=list(itr))


class Demo(Recording):
    """The subclass form of the original's README."""

    def __init__(self, **kwargs: Any) -> None:
        blueprint = flask.Blueprint("app", __name__)

        @blueprint.route("/get_list")
        def get_list() -> str:
            return ",".join(map(str, self.partition))

        super().__init__(blueprint=blueprint, **kwargs)

    def init_partition(self, itr: Iterable[Any], app: flask.Flask, config: dict[str, Any]) -> None:
        self.partition = list(itr)


# ------------------------------------------------------------------------------------ the original's behaviour


def test_the_function_form_serves_what_init_put_into_the_config() -> None:
    # failure: current_app.config is another one than the app that init_partition was given
    with launched(Recording(blueprint=concat_blueprint(), init_partition=keep_data), range(4)) as launch:
        assert launch.ask("/app/concat") == (200, "0,1,2,3")


def test_the_subclass_form_serves_from_self() -> None:
    # failure: the method init_partition is not found, or runs on another object
    with launched(Demo(), range(3)) as launch:
        assert launch.ask("/app/get_list") == (200, "0,1,2")
        assert launch.ask("/get_list")[0] == 404
        assert launch.server.registered == [(LOCAL, launch.server.port)]


def test_a_pickled_server_serves_and_an_empty_partition_is_served() -> None:
    # failure: live objects in __init__, or a blueprint's closure bound to the object that stayed on the driver
    copy = cloudpickle.loads(cloudpickle.dumps(Demo(config={"a": 1}, threads=2)))
    with launched(copy, []) as launch:
        assert launch.ask("/app/get_list") == (200, "")
        assert (copy.config, copy.threads) == ({"a": 1}, 2)


def test_init_finds_everything_in_its_place() -> None:
    # failure: init_partition runs before the port is known, or with another config
    seen: dict[str, Any] = {}

    def init(itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
        seen.update(app.config, name=app.name, itr=itr, given=config)
        seen["reachable"] = not refuses(app.config["PORT"])

    config = {"depth": 2}
    server = Recording(init_partition=init, config=config)
    with launched(server, [1, 2], partition=7) as launch:
        assert seen["name"] == "FlaskPartitionServer7"
        assert (seen["PARTITION"], seen["HOST"], seen["PORT"]) == (7, LOCAL, server.port)
        assert seen["PARTITION_ITERATOR"] is seen["itr"] is server.itr
        assert seen["PARTITION_SERVER"] is server
        assert seen["given"] is config
        assert seen["reachable"]  # the port is bound: nobody else can take it while init runs
        assert launch.ask("/control/ping")[0] == 200


def test_the_function_goes_before_the_method() -> None:
    # failure: both run, or the method hides the argument
    server = Demo(init_partition=lambda itr, app, config: setattr(server, "partition", ["function"]))
    with launched(server, range(3)) as launch:
        assert launch.ask("/app/get_list") == (200, "function")


def test_a_blueprint_made_by_init_is_served() -> None:
    # failure: the blueprint is looked at before init_partition has run
    class Late(Recording):
        def init_partition(self, itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
            self.blueprint = concat_blueprint()
            app.config["DATA"] = list(itr)

    with launched(Late(), "ab") as launch:
        assert launch.ask("/app/concat") == (200, "a,b")


def test_without_blueprint_and_init_the_control_routes_answer() -> None:
    # failure: a server without init_partition fails; ping answers one of the two methods only
    with launched(Recording()) as launch:
        assert [launch.ask("/control/ping", method)[0] for method in ("GET", "POST")] == [200, 200]
        assert launch.ask("/app/")[0] == 404
        assert launch.ask("/control/shutdown")[0] == 405


def test_views_of_the_user_may_have_the_names_of_ours() -> None:
    # failure: "View function mapping is overwriting an existing endpoint function: ping"
    def init(itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
        @app.route("/ping")
        def ping() -> str:
            return "theirs"

        @app.route("/bye")
        def shutdown() -> str:
            return "theirs"

    with launched(Recording(init_partition=init)) as launch:
        assert [launch.ask(path) for path in ("/ping", "/bye", "/control/ping")] == [(200, "theirs")] * 2 + [(200, "")]


def test_a_view_that_raises_is_an_error_500_and_the_server_goes_on() -> None:
    # failure: one bad request ends the partition
    def init(itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
        app.config["DATA"] = None

    with launched(Recording(blueprint=concat_blueprint(), init_partition=init, threads=1)) as launch:
        assert [launch.ask("/app/concat")[0] for _ in range(3)] == [500] * 3
        assert launch.ask("/control/ping")[0] == 200


def test_it_answers_when_it_registers() -> None:
    # failure: clients that learn the address from the coordinator find nobody there
    server = Demo()
    answers: list[Any] = []
    server.at_register = lambda: answers.append(launch.ask("/app/get_list"))
    launch = Launch(server, "xy")
    launch.ready()
    assert answers == [(200, "x,y")]
    server.shutdown()
    assert launch.failure() is None


# --------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN.hex()[:-2], TOKEN.hex() + "00", TOKEN.decode("latin-1"), "\xff\xfe"],
    ids=["none", "empty", "short", "long", "raw octets", "not ASCII"],
)
def test_without_the_token_nobody_stops_the_server(header: str | None) -> None:
    # failure: a stranger ends a partition; or the comparison raises, and the stranger gets an error 500
    with launched(Recording()) as launch:
        assert launch.ask(SHUTDOWN, "POST", header)[0] == 403
        assert launch.ask(f"{SHUTDOWN}?token={TOKEN.hex()}", "POST")[0] == 403  # a URL ends up in logs
        assert launch.ask("/control/ping")[0] == 200


@pytest.mark.parametrize("token", [None, b""])
def test_a_server_without_a_token_cannot_be_stopped_over_http(token: bytes | None) -> None:
    # failure: no token means that every token will do
    with launched(Recording()) as launch:
        launch.server.token = token
        assert launch.ask(SHUTDOWN, "POST", token="")[0] == 403
        assert launch.ask(SHUTDOWN, "POST", token="None")[0] == 403


@pytest.mark.parametrize("header", [TOKEN.hex(), TOKEN.hex().upper()])
def test_with_the_token_the_server_answers_and_stops(header: str) -> None:
    # failure: the stop cuts its own answer off
    launch = Launch(Recording()).ready()
    assert launch.ask(SHUTDOWN, "POST", token=header) == (200, "the server shuts down\n")
    assert launch.failure() is None
    assert refuses(launch.server.port)


# ------------------------------------------------------------------------------------------ the way it ends


def test_shutdown_from_another_thread_ends_it_with_clients_connected() -> None:
    # failure: a client that keeps its connection keeps the partition, and stop() waits for it
    launch = Launch(Recording()).ready()
    connection = http.client.HTTPConnection(LOCAL, launch.server.port, timeout=LONG)
    connection.request("GET", "/control/ping")
    connection.getresponse().read()
    launch.server.shutdown("the cluster stops", 600.0)
    assert launch.failure() is None
    assert connection.sock.recv(1) == b""
    connection.close()
    launch.server.shutdown("once more")  # failure: an error in the thread that calls it too late


def test_shutdown_during_init_is_kept_until_init_has_ended() -> None:
    # failure: the request to stop is lost, and the server serves for ever
    entered, go = threading.Event(), threading.Event()

    def init(itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
        entered.set()
        go.wait(LONG)

    launch = Launch(Recording(init_partition=init))
    assert entered.wait(LONG)
    launch.server.shutdown("changed my mind")
    go.set()
    assert launch.failure() is None


@pytest.mark.parametrize("error", [ValueError("bad row"), AttributeError("no such column"), SystemExit(3)])
def test_what_init_raises_comes_out(error: BaseException) -> None:
    # failure: an AttributeError of the user's is taken for "there is no init_partition", and the server serves nothing
    class Broken(Recording):
        def init_partition(self, itr: Any, app: flask.Flask, config: dict[str, Any]) -> None:
            raise error

    launch = Launch(Broken())
    assert launch.failure() is error
    assert launch.server.registered == []
    assert refuses(launch.server.port)


def test_what_register_raises_comes_out() -> None:
    # failure: a server that the coordinator has refused goes on serving
    def refused() -> None:
        raise ConnectionError("refused")

    server = Recording()
    server.at_register = refused
    launch = Launch(server)
    assert isinstance(launch.failure(), ConnectionError)
    assert refuses(server.port or 0)


def test_the_same_object_serves_again() -> None:
    # failure: Flask forbids new routes on an application that has served, and a blueprint that was registered before
    server = Demo()
    for rows in ("ab", "cd"):
        server.port = None
        with launched(server, rows) as launch:
            assert launch.ask("/app/get_list") == (200, ",".join(rows))
            port = server.port
        assert refuses(port)


def test_the_shutdown_callback_runs_once_while_the_server_still_answers() -> None:
    # failure: the callback runs for none or both of the two ways to stop, or when nobody is served any more
    server = Recording()
    calls: list[Any] = []
    server.set_shutdown_callback(lambda: calls.append(launch.ask("/control/ping")))
    launch = Launch(server).ready()
    launch.ask(SHUTDOWN, "POST", token=TOKEN.hex())
    server.shutdown()
    assert launch.failure() is None
    assert calls == [(200, "")]


def test_a_callback_that_raises_cannot_keep_the_server_up() -> None:
    # failure: the server is never stopped, or the error is silent
    server = Recording()
    server.set_shutdown_callback(lambda: 1 / 0)
    launch = Launch(server).ready()
    server.shutdown()
    assert isinstance(launch.failure(), ZeroDivisionError)
    assert refuses(server.port or 0)


def test_a_server_that_fails_by_itself_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # failure: the loop has died, and the partition's task goes on as if it served
    import waitress.wasyncore

    def broken(**options: Any) -> None:
        raise OSError("out of descriptors")

    launch = Launch(Recording(), partition=5).ready()
    monkeypatch.setattr(waitress.wasyncore, "loop", broken)
    error = launch.failure()
    assert isinstance(error, RuntimeError)
    assert "partition 5" in str(error)
    assert isinstance(error.__cause__, OSError)


# --------------------------------------------------------------------------------------- ports and packages


def test_a_given_port_and_a_range_are_honoured() -> None:
    # failure: the server listens somewhere else than the firewall allows
    with socket.create_server((LOCAL, 0)) as taken:
        first = taken.getsockname()[1]
        options = ServerOptions(ports=(first, min(first + 50, 65535)))
        with launched(Recording(options=options)) as launch:
            assert launch.server.port in range(first + 1, options.ports[1] + 1)
            port = launch.server.port
        with launched(Recording(port=port)) as launch:
            assert launch.server.registered == [(LOCAL, port)]
        error = Launch(Recording(port=first)).failure()
        assert isinstance(error, PortUnavailable)
        assert str(first) in str(error)


def test_the_limits_of_the_options_hold() -> None:
    # failure: a request of any size is taken in
    with launched(Recording(options=ServerOptions(message_bytes_max=10))) as launch:
        assert ask(launch.server.port, "/control/ping", "POST", bytes(10))[0] == 200
        assert ask(launch.server.port, "/control/ping", "POST", bytes(11))[0] == 413
    with pytest.raises(ValueError, match="threads must be at least 1"):
        FlaskPartitionServer(threads=0)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        ServerThread(flask.Flask("test"), threads=0)


@pytest.mark.parametrize("module", ["flask", "waitress"])
def test_an_executor_without_the_extra_is_told_which_package(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # failure: an ImportError from the middle of Spark that names no partition server
    monkeypatch.setitem(sys.modules, module, None)
    error = Launch(Recording()).failure()
    assert isinstance(error, MissingDependency)
    assert error.module == module
    assert "install spark-partition-server[flask] there" in str(error)
