"""The alternatives that ``latency.py`` measures beside the library, each where it is installed.

Each is asked for the value of a key by one synchronous client, in the way its own manual shows first for that. The
extra ``bench-peers`` installs the Python packages; Redis is measured where a ``redis-server`` is on the path.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import floor
from measuring import APART, PINNED, Child, Regime, Variant, pin, placed, say
from report import skip

DEADLINE = 30.0  # seconds an alternative has to start
FEW, VERY_FEW = 60, 5  # calls of a burst, where one takes a millisecond, or many
HOST = "127.0.0.1"


class Asking:
    """A caller made of two functions."""

    def __init__(self, call: Callable[[str], Any], close: Callable[[], Any]) -> None:
        self.call = call
        self.close = close


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


# ----------------------------------------------------------------------------------- Redis


def open_redis(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    """A redis-server of our own, over TCP and over a Unix socket; nothing is written to a disk."""
    import redis

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    port, path = free_port(), str(Path(folder) / "redis.sock")
    command = ["redis-server", "--port", str(port), "--bind", HOST, "--unixsocket", path, "--save", "", "--dir", folder]
    with placed(regime.server_cpu):
        process = subprocess.Popen([*command, "--appendonly", "no"], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    with placed(regime.client_cpu):
        clients = {
            "redis GET tcp": redis.Redis(HOST, port, decode_responses=True),
            "redis GET unix": redis.Redis(unix_socket_path=path, decode_responses=True),
        }
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            clients["redis GET tcp"].mset(floor.make_table())
            break
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    # redis-py without hiredis is slower, and its figure no bar
    parser = "" if redis.utils.HIREDIS_AVAILABLE else ", without hiredis"
    return {name + parser: Variant(Asking(one.get, one.close), process.pid) for name, one in clients.items()}


# ----------------------------------------------------------------------------------- servers in Python


def serve_flask() -> None:
    import flask
    import waitress

    table = floor.make_table()
    application = flask.Flask("peers")
    application.add_url_rule("/get/<key>", view_func=lambda key: table[key])
    server = waitress.create_server(application, host=HOST, port=0, threads=8)
    say(port=server.effective_port)
    server.run()


def ask_flask(port: int) -> Asking:
    import requests

    session = requests.Session()
    return Asking(lambda key: session.get(f"http://{HOST}:{port}/get/{key}").text, session.close)


def serve_flight() -> None:
    from pyarrow import flight

    table = floor.make_table()

    class Server(flight.FlightServerBase):
        def do_action(self, context: Any, action: Any) -> list[bytes]:
            return [table[action.body.to_pybytes().decode()].encode()]

    server = Server(f"grpc://{HOST}:0")
    say(port=server.port)
    server.serve()


def ask_flight(port: int) -> Asking:
    from pyarrow import flight

    client = flight.connect(f"grpc://{HOST}:{port}")

    def call(key: str) -> str:
        return str(next(client.do_action(flight.Action("get", key.encode()))).body.to_pybytes().decode())

    return Asking(call, client.close)


def serve_grpc() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    table = floor.make_table()
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: table[request.decode()].encode())
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peers", {"get": handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    say(port=port)
    server.wait_for_termination()


def ask_grpc(port: int) -> Asking:
    import grpc

    channel = grpc.insecure_channel(f"{HOST}:{port}")
    method = channel.unary_unary("/peers/get")
    return Asking(lambda key: method(key.encode()).decode(), channel.close)


SERVERS: dict[str, tuple[Callable[[], None], Callable[[int], Asking]]] = {
    "flask": (serve_flask, ask_flask),
    "flight": (serve_flight, ask_flight),
    "grpc": (serve_grpc, ask_grpc),
}


def open_server(name: str, regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    server = stack.enter_context(Child(__file__, "--serve", name, cpu=regime.server_cpu))
    asking = SERVERS[name][1](server.hello["port"])
    return {name: Variant(asking, server.pid, FEW)}


# ----------------------------------------------------------------------------------- clusters of their own


class Table:
    """The actor of Ray and of Dask."""

    def __init__(self) -> None:
        self.values = floor.make_table()

    def get(self, key: str) -> str:
        return self.values[key]


def open_ray(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    stack.callback(ray.shutdown)
    actor = ray.remote(Table).remote()
    return {"ray actor": Variant(Asking(lambda key: ray.get(actor.get.remote(key)), lambda: None), None, FEW)}


def open_dask(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    from distributed import Client

    client = stack.enter_context(Client(n_workers=1, threads_per_worker=1, dashboard_address=None))
    actor = client.submit(Table, actor=True).result()
    return {"dask actor": Variant(Asking(lambda key: actor.get(key).result(), lambda: None), None, FEW)}


def open_spark(regime: Regime, stack: ExitStack) -> dict[str, Variant]:
    """What one writes without any server: a job that looks into the cached partition that has the key."""
    import pyspark

    os.environ.setdefault("SPARK_LOCAL_IP", HOST)
    conf = pyspark.SparkConf().setMaster("local[2]").setAppName("peers")
    for key in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        conf.set(key, "false")
    context = pyspark.SparkContext(conf=conf)
    stack.callback(context.stop)
    context.setLogLevel("ERROR")
    pairs = context.parallelize(list(floor.make_table().items()), 2)
    pairs = pairs.partitionBy(2, lambda key: zlib.crc32(key.encode())).cache()
    pairs.count()
    return {"spark job": Variant(Asking(lambda key: pairs.lookup(key)[0], lambda: None), None, VERY_FEW)}


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Regime, ExitStack], dict[str, Variant]]]] = {
    "redis": (("redis",), open_redis),
    "flask": (("flask", "waitress", "requests"), lambda regime, stack: open_server("flask", regime, stack)),
    "flight": (("pyarrow.flight",), lambda regime, stack: open_server("flight", regime, stack)),
    "grpc": (("grpc",), lambda regime, stack: open_server("grpc", regime, stack)),
    "ray": (("ray",), open_ray),
    "dask": (("distributed",), open_dask),
    "spark": (("pyspark",), open_spark),
}
CLUSTERS = ("ray", "dask", "spark")  # they start so many processes and threads that they are measured apart


def missing(modules: tuple[str, ...]) -> str:
    """What is not installed, by name."""
    return ", ".join(name for name in modules if not found(name))


def found(module: str) -> bool:
    parent = module.partition(".")[0]
    return importlib.util.find_spec(parent) is not None and importlib.util.find_spec(module) is not None


def names_for(regime: Regime) -> list[str]:
    """Which of them belong to a regime."""
    if regime is PINNED:
        return ["redis"]
    return [name for name in PEERS if (name in CLUSTERS) == (regime is APART)]


def open_all(regime: Regime, skipped: dict[str, str], stack: ExitStack) -> dict[str, Variant]:
    """Those that are here; one line for each that is not."""
    variants: dict[str, Variant] = {}
    for name in names_for(regime):
        modules, start = PEERS[name]
        lacking = missing(modules)
        if lacking:
            skip(skipped, name, f"{lacking} is not installed (the extra `bench-peers`)")
        elif name == "redis" and shutil.which("redis-server") is None:
            skip(skipped, name, "redis-server is not on the path")
        elif name == "spark" and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            skip(skipped, name, "no Java")
        else:
            variants |= start(regime, stack)
    for variant in variants.values():
        stack.callback(variant.caller.close)
    return variants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=SERVERS, required=True)
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    pin(options.cpu)
    SERVERS[options.serve][0]()


if __name__ == "__main__":
    main()
