"""How submitted calls end when something goes wrong: cancels, losses, closing, forks, the interpreter's end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import pytest
from support.astray import lead_astray
from support.lanes import Acceptor, serving
from support.probe import LATE, LONG, switches
from support.threads import begin
from support.wait import wait_until

from spark_partition_server import connect
from spark_partition_server.errors import CallOutcomeUnknown, CallTimeout, CoordinatorLost, Unavailable
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Cancel, Error, Kind, Reply

# ---------------------------------------------------------------------------------------------- cancels


def test_a_call_can_be_cancelled_until_it_is_over(client):
    """``cancel`` is true, everybody who waits learns it, and callbacks run; afterwards it changes nothing."""
    called: list[Any] = []
    future = client.submit(1, "wait")
    future.add_done_callback(called.append)
    assert switches.entered.wait(LONG)
    threading.Timer(0.05, future.cancel).start()
    with pytest.raises(CancelledError):
        future.result()
    wait_until(lambda: called == [future])
    assert future.cancel()
    assert future.cancelled()
    assert wait([future], LONG).done == {future}
    with pytest.raises(CancelledError):
        future.exception()
    switches.gate.set()
    over = client.submit(1, "rank")
    assert over.result() == 1
    assert not over.cancel()
    assert not over.cancelled()


def test_the_server_is_told_of_a_cancel(cluster, client):
    """[8.32] The CANCEL names the call; its late answer reaches nobody, and later calls get their own."""
    run_id = cluster.coordinator.run_id
    opening = codec.preamble(Kind.REQUEST, run_id)
    requests: list[int] = []
    cancelled: list[int] = []

    def answer(frames: Any, *_: Any) -> Any:
        try:
            fields = codec.read_request(frames, opening, run_id)
        except Exception:  # noqa: BLE001 - it is no REQUEST
            message = codec.decode(frames, run_id)
            assert isinstance(message, Cancel)
            cancelled.append(message.call_id)
            return codec.encode(Reply(message.call_id, (b"\x01",)), run_id)
        requests.append(fields[0])
        return codec.encode(Reply(fields[0], (b"\x02",)), run_id) if fields[1] == "get" else None

    with serving(answer) as server:
        lead_astray(cluster, client, server.address[1])
        future = client.submit(1, "held")
        wait_until(lambda: requests)
        assert future.cancel()
        wait_until(lambda: cancelled)
        assert cancelled == requests
        assert client.submit(1, "get").result() == 2
        assert future.cancelled()


def test_a_cancel_concerns_its_own_call_alone(client):
    """Those before and behind it, over the same connection, are answered."""
    client.submit(1, "rank").result()
    futures = [client.submit(1, "wait", str(number)) for number in range(3)]
    assert futures[1].cancel()
    switches.gate.set()
    assert (futures[0].result(), futures[2].result()) == ("0", "2")
    assert client.submit(1, "rank").result() == 1


# ----------------------------------------------------------------------------------------------- losses


def test_a_lost_connection_fails_what_was_under_way_and_no_more(client):
    """Not idempotent: the outcome is unknown, for each of them; the next call goes over a new connection."""
    futures = [client.submit(1, "wait", str(number)) for number in range(3)]
    assert switches.entered.wait(LONG)
    for line in client._submitter._exchange.lines.values():
        line.channel._socket.shutdown(2)
    for future in futures:
        with pytest.raises(CallOutcomeUnknown, match="lost before it answered"):
            future.result()
    switches.gate.set()
    assert client.submit(1, "rank").result() == 1


def test_idempotent_calls_are_repeated_each_on_its_own(client):
    """A connection that ends under two hundred: all get their answers, and the retry budget pays for one failure."""
    futures = [client.submit(1, "get", "b") for _ in range(100)]
    futures += [client.submit(1, "cut_and_repeat", "x")]
    futures += [client.submit(1, "get", "b") for _ in range(100)]
    assert [future.result() for future in futures] == [2] * 201
    assert switches.runs["x"] == 2


def test_a_retry_waits_for_nobody(cluster, client):
    """A call is tried again until its deadline; meanwhile others are begun and answered."""
    run_id = cluster.coordinator.run_id
    opening = codec.preamble(Kind.REQUEST, run_id)
    tries: list[int] = []

    def answer(frames: Any, *_: Any) -> Any:
        tries.append(codec.read_request(frames, opening, run_id)[0])
        if len(tries) > 3:
            return codec.encode(Reply(tries[-1], (b"\x07",)), run_id)
        return codec.encode(Error(tries[-1], Code.OVERLOADED, "eleven wait"), run_id)

    with serving(answer) as server:
        lead_astray(cluster, client, server.address[1])
        future = client.submit(1, "run")
        assert [client.submit(2, "rank").result() for _ in range(5)] == [2] * 5
        wait_until(future.done)
        assert future.result() == 7
    assert len(tries) == len(set(tries)) == 4


def test_a_server_that_never_answers_holds_up_nobody(cluster):
    """Its port accepts and nothing is read, or no handshake comes: calls to others go on, its own end in time."""
    client = cluster.client(timeout=LONG, route="direct")
    for opening in ({}, {"opening": b""}):
        with Acceptor(**opening) as silent:
            lead_astray(cluster, client, silent.listening.getsockname()[1])
            began = time.monotonic()
            large = [client.submit(1, "echo", bytes(8 << 20), timeout=1.0) for _ in range(3)]
            small = [client.submit(2, "echo", number).result() for number in range(20)]
            assert small == [[[number], {}] for number in range(20)]
            for future in large:
                assert isinstance(future.exception(), (CallTimeout, Unavailable))
                assert future.exception().definite
            assert time.monotonic() - began < 1.0 + LATE


def test_a_call_is_not_failed_by_an_attempt_that_had_less_time(client, monkeypatch):
    """It came while a connection was being made for another call, whose deadline ended the attempt."""
    find, tried, parked = client._lanes.member, threading.Event(), threading.Event()

    def member(*where: Any) -> Any:
        monkeypatch.setattr(client._lanes, "member", find)
        tried.set()
        assert parked.wait(LONG)
        raise CoordinatorLost("no time left to connect")

    monkeypatch.setattr(client._lanes, "member", member)
    short = client.submit(1, "rank", timeout=1.0)
    assert tried.wait(LONG)
    patient = client.submit(1, "rank", timeout=LONG)
    parked.set()
    assert isinstance(short.exception(), CoordinatorLost)
    assert patient.result() == 1


def test_a_call_that_ends_before_another_try_tells_what_the_last_has_failed_with(client, monkeypatch):
    """As ``call`` does: that its server refuses connections says more than that the time was over."""
    over, tries = threading.Event(), []

    def channel(*where: Any) -> Any:
        tries.append(where)
        if len(tries) > 1:
            over.wait(LONG)
        raise Unavailable("cannot connect: refused", rank=1, method="rank")

    monkeypatch.setattr(client._lanes, "channel", channel)
    error = client.submit(1, "rank", timeout=0.5).exception()
    over.set()
    assert isinstance(error, Unavailable)
    assert "refused" in str(error)


def test_a_connection_that_ended_while_nobody_called(client):
    """Idle, and its server is another by now: found out before a request is sent over it."""
    client.submit(1, "rank").result()
    line = client._submitter._exchange.lines[1]
    line.channel._socket.shutdown(2)
    line.used -= 10.0
    assert client.submit(1, "run", "once").result() == 1
    assert switches.runs["once"] == 1


# --------------------------------------------------------------------------------------------- the end


def test_close_ends_what_is_under_way(client):
    """At once and typed: what was sent may have run, what was not has not."""
    sent = client.submit(1, "wait")
    assert switches.entered.wait(LONG)
    called = threading.Event()
    sent.add_done_callback(lambda _: called.set())
    waiting = begin(sent.exception)
    client.close()
    assert isinstance(waiting.result(LONG), CallOutcomeUnknown)
    assert called.is_set()
    assert isinstance(sent.exception(0), CallOutcomeUnknown)
    with pytest.raises(Unavailable, match="client is closed"):
        client.submit(1, "rank")
    client.close()


def test_a_callback_may_close_the_client(client):
    """In whatever thread it runs."""
    over = threading.Event()

    def close(_: Any) -> None:
        client.close()
        over.set()

    client.submit(1, "rank").add_done_callback(close)
    assert over.wait(LONG)


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "partition-client-pump"]


def test_a_client_that_nobody_closed_leaves_no_thread(cluster):
    """Its calls that are under way end with their answers; then the thread and the connections go."""
    client = connect(cluster.connection_file, timeout=LONG)
    future = client.submit(1, "wait")
    assert switches.entered.wait(LONG)
    gone = weakref.ref(client._submitter)
    del client
    gc.collect()
    assert len(pumps()) == 1
    switches.gate.set()
    assert future.result() == "wait"
    wait_until(lambda: not pumps())
    assert gone() is None
    unused = connect(cluster.connection_file, timeout=LONG)
    unused.submit(0, "rank").result()
    del unused
    wait_until(lambda: not pumps())


SCRIPT = """
import os, sys, threading
from concurrent.futures import wait
from spark_partition_server import connect
from spark_partition_server.errors import Unavailable

client = connect(sys.argv[1], timeout=60.0)
"""

EXIT = """
[client.submit(1, "wait") for _ in range(3)]
client.submit(2, "rank").result()
print("over", flush=True)
"""

FORK = """
before = [client.submit(1, "echo", number) for number in range(100)]
child = os.fork()
if not child:
    code = 1
    try:
        own = [client.submit(number % 3, "echo", -number) for number in range(100)]
        assert [future.result() for future in own] == [[[-number], {}] for number in range(100)]
        for future in before:
            if not future._condition.acquire(blocking=False):
                continue  # it got its result at the very moment of the fork: its lock is held by nobody's thread
            future._condition.release()
            try:
                assert future.done() or future.result()
            except Unavailable as error:
                assert "before a fork" in str(error)
        if sys.argv[2] == "close":
            client.close()
        code = 0
    finally:
        os._exit(code)
assert [future.result() for future in before] == [[[number], {}] for number in range(100)]
print("over", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
after = [client.submit(number % 3, "echo", number) for number in range(100)]
assert [future.result() for future in after] == [[[number], {}] for number in range(100)]
"""


def run(cluster: Any, script: str, *arguments: str) -> str:
    folder = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", SCRIPT + script, cluster.connection_file, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=30)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_an_interpreter_ends_with_calls_under_way(cluster):
    """Without waiting for them, and without a word."""
    began = time.monotonic()
    assert run(cluster, EXIT) == "over\n"
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_forked_child_has_calls_of_its_own(cluster, how):
    """Parent and child submit at the same time; what the parent began, only the parent gets."""
    assert run(cluster, FORK, how) == "over 0\n"
