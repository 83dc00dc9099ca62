"""The command line: look at a running cluster, call it, stop it, by its connection file.

``spark-partition-server status|call|ping|stop FILE``, or ``python -m spark_partition_server``. A table for people by
default, ``--json`` for programs. Needs no Spark and no JVM.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, TextIO

from . import connection_file
from .calling.routes import Routes
from .client import Client, connect
from .connection_file import Connection
from .core.failures import refusal
from .errors import CoordinatorLost, MethodNotFound, RemoteProtocolError, SparkPartitionServerError
from .net.clock import monotonic
from .net.lane import Lane
from .version import __version__
from .wire import codec
from .wire.codec import VIEW_BYTES_MAX
from .wire.codes import Code
from .wire.messages import Member, Refuse, Stop

__all__ = ["main"]

PROGRAM = "spark-partition-server"
STATUS = "sps.status"  # what every QueryServer answers
AT_ONCE = 16  # servers looked at side by side
PINGS = 10  # round trips of one ping
LOOK_EVERY = 0.05  # seconds between two looks whether the cluster has gone
KEY = "key="
OK, FAILED = 0, 1

Table = Sequence[Sequence[str]]


def main(arguments: Sequence[str] | None = None, output: TextIO | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: default: those of the process.
        output: where the answer goes; default: standard output.

    Returns:
        The exit code: 0, or 1 where the cluster failed, is incomplete or cannot be reached. A wrong command line ends
        the process with 2, as argparse does.
    """
    parsed = _parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed, output or sys.stdout))
        (output or sys.stdout).flush()
        return code
    except BrokenPipeError:  # whoever reads our output has seen enough (| head)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (SparkPartitionServerError, OSError, ValueError, TypeError) as error:
        print(f"{PROGRAM}: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description="Looks at a running cluster, calls it, stops it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Any, TextIO], int], text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("file", metavar="FILE", help="the cluster's connection file")
        one.add_argument("--timeout", type=_seconds, default=5.0, metavar="S", help="seconds to wait (default: 5)")
        one.add_argument("--json", action="store_true", help="print JSON")
        one.set_defaults(run=run)
        return one

    command("status", _status, "Shows who serves which partition, and how it is doing.")
    call = command("call", _call, "Calls a method of one partition, or of all, and prints what it returns.")
    partition = "a number, or: all, or: key=KEY for the partition that owns a key (JSON, else text)"
    call.add_argument("partition", type=_partition, metavar="PARTITION", help=partition)
    call.add_argument("method", metavar="METHOD")
    call.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="JSON; what is no JSON is taken for text")
    named = "an argument by name; may come more than once"
    call.add_argument("--named", action="append", type=_named, default=[], metavar="NAME=VALUE", help=named)
    ping = command("ping", _ping, "Measures the round trip to every server, or to one.")
    ping.add_argument("partition", type=int, nargs="?", metavar="PARTITION")
    stop = command("stop", _stop, "Stops the cluster, as its driver would, and waits until it has gone.")
    stop.add_argument("--reason", default="", metavar="TEXT", help="for the logs of the cluster")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is wanted, not {text!r}")
    return value


def _partition(text: str) -> int | str | None:
    if text.startswith(KEY):
        return text
    if text == "all":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number, all, or key=KEY is wanted, not {text!r}")
    return int(text)


def _named(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"NAME=VALUE is wanted, not {text!r}")
    return name, _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# -------------------------------------------------------------------------------------------- the commands


def _status(parsed: Any, output: TextIO) -> int:
    size, members = _members(parsed)
    with _client(parsed) as client:
        states = _side_by_side(lambda member: _state(client, member), members)
    rows = {state["partition"]: state for state in states}
    found = [rows.get(rank, {"partition": rank, "state": "missing"}) for rank in range(size)]
    serving = sum(state["state"] == "serving" for state in found)
    if parsed.json:
        _print_json({"partitions": size, "serving": serving, "servers": found}, output)
    else:
        names = ("partition", "state", "server", "attempt", "pid", "uptime_s", "calls", "errors", "in_flight", "queued")
        _print_table([names, *([_cell(state.get(name)) for name in names] for state in found)], output)
        print(f"{serving} of {size} partitions are served", file=output)
    return OK if serving == size else FAILED


def _state(client: Client, member: Member) -> dict[str, Any]:
    state: dict[str, Any] = {
        "partition": member.rank,
        "state": "serving",
        "server": member.endpoint.rpartition("/")[2] or f"{member.host}:{member.port}",
        "attempt": member.attempt,
        "incarnation": member.incarnation,
    }
    try:
        told = client.call(member.rank, STATUS)
    except MethodNotFound:
        return state  # a server of another kind: it is registered, and that is all there is to know
    except SparkPartitionServerError as error:
        return {**state, "state": "not answering", "error": f"{type(error).__name__}: {error}"}
    return {**told, **state} if isinstance(told, dict) else state


def _call(parsed: Any, output: TextIO) -> int:
    arguments = [_value(text) for text in parsed.arguments]
    with _client(parsed) as client:
        if parsed.partition is None:
            result: Any = client.call_all(parsed.method, *arguments, **dict(parsed.named))
        else:
            key = parsed.partition
            partition = client.partition_of(_value(key.removeprefix(KEY))) if isinstance(key, str) else key
            result = client.call(partition, parsed.method, *arguments, **dict(parsed.named))
    if parsed.json:
        _print_json(result, output)
    else:
        print(result, file=output)
    return OK


def _ping(parsed: Any, output: TextIO) -> int:
    _, members = _members(parsed)
    wanted = [member for member in members if parsed.partition in (None, member.rank)]
    if not wanted:
        raise ValueError(f"nobody serves partition {parsed.partition}")
    with _client(parsed) as client:
        found = [_round_trips(client, member) for member in wanted]  # one by one: they would disturb each other
    if parsed.json:
        _print_json(found, output)
    else:
        names = ("partition", "server", "p50_us", "min_us", "max_us", "error")
        _print_table([names, *([_cell(one.get(name)) for name in names] for one in found)], output)
    return FAILED if any("error" in one for one in found) else OK


def _round_trips(client: Client, member: Member) -> dict[str, Any]:
    found: dict[str, Any] = {"partition": member.rank, "server": f"{member.host}:{member.port}"}
    if not member.endpoint:
        return {**found, "error": "it takes no calls (it is no QueryServer)"}
    times = []
    try:
        for _ in range(PINGS + 1):
            begun = monotonic()
            with suppress(MethodNotFound):  # an answer as good as any
                client.call(member.rank, STATUS)
            times.append((monotonic() - begun) * 1e6)
    except SparkPartitionServerError as error:
        return {**found, "error": f"{type(error).__name__}: {error}"}
    times = times[1:]  # the first one made the connection
    return {
        **found,
        "p50_us": round(statistics.median(times), 1),
        "min_us": round(min(times), 1),
        "max_us": round(max(times), 1),
    }


def _stop(parsed: Any, output: TextIO) -> int:
    known = connection_file.read(parsed.file)
    if known.admin is None:
        admin = connection_file.admin_file(parsed.file)
        if not admin.exists():
            text = f"what may stop the cluster is {admin.name}, which the driver wrote beside its own; it is not here"
            raise ValueError(f"{parsed.file!r} is for clients: {text} ({str(admin)!r})")
        known = connection_file.read(admin)
    if known.admin is None:
        raise ValueError(f"{parsed.file!r} is for clients; the file that may stop the cluster lies beside it")
    deadline = monotonic() + parsed.timeout
    _ask_to_stop(known, Stop(known.admin, parsed.reason), deadline)
    gone = _gone(known.coordinator, deadline)
    if parsed.json:
        _print_json({"stopping": True, "gone": gone}, output)
    else:
        print("stopped" if gone else f"stopping; not gone after {parsed.timeout:g} s", file=output)
    return OK if gone else FAILED


def _ask_to_stop(known: Connection, stop: Stop, deadline: float) -> None:
    """Returns once the coordinator has said that the cluster is closed."""
    try:
        lane = Lane(known.coordinator, deadline, VIEW_BYTES_MAX)
        with closing(lane):
            lane.send(codec.encode(stop, known.run_id), deadline)
            answer = codec.decode(lane.receive(deadline)[0], known.run_id)
    except OSError as error:
        text = f"the coordinator at {known.coordinator} does not answer ({error}): has its driver ended already?"
        raise CoordinatorLost(text) from error
    if not isinstance(answer, Refuse) or answer.code != Code.CLOSED:
        raise refusal(answer, known.coordinator) if isinstance(answer, Refuse) else RemoteProtocolError("no answer")


def _gone(coordinator: str, deadline: float) -> bool:
    """Waits until nobody listens at the coordinator's endpoint any more."""
    while monotonic() < deadline:
        try:
            Lane(coordinator, deadline, VIEW_BYTES_MAX).close()
        except (OSError, RemoteProtocolError):
            return True
        threading.Event().wait(LOOK_EVERY)
    return False


# ------------------------------------------------------------------------------------------------- helpers


def _client(parsed: Any) -> Client:
    return connect(parsed.file, timeout=parsed.timeout)


def _members(parsed: Any) -> tuple[int, list[Member]]:
    """How many partitions the cluster has, and who serves them now."""
    known = connection_file.read(parsed.file)
    routes = Routes(known.coordinator, known.run_id, None)
    try:
        now = monotonic()
        routes.refresh(now, now + parsed.timeout)
        return routes.calls.size, [member for _, member in sorted(routes.calls.members.items())]
    finally:
        routes.close()


def _side_by_side(look: Callable[[Member], dict[str, Any]], members: Sequence[Member]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(look, members))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _print_table(rows: Table, output: TextIO) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=output)


def _print_json(value: Any, output: TextIO) -> None:
    json.dump(value, output, indent=2, default=_plain)
    print(file=output)


def _plain(value: Any) -> Any:
    """What JSON has no type for: arrays as lists, octets as hex digits, anything else as text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    tolist = getattr(value, "tolist", None)
    return tolist() if tolist is not None else str(value)
