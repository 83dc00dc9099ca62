"""Each face of a client and live servers: answers, deadlines, cancelled calls, the end."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
from support.lanes import patterned
from support.probe import LATE, LONG, switches
from support.wait import wait_until

from spark_partition_server import ClientOptions
from spark_partition_server.errors import CallOutcomeUnknown, CallTimeout, HandlerError, Unavailable
from spark_partition_server.net import lane
from spark_partition_server.net.loop_lane import LoopLane

# ------------------------------------------------------------------------------------------ answers


def test_each_partition_answers_for_itself(face):
    """By number, by name, and all at once in their order."""
    assert [face.call(rank, "get", key) for rank, key in enumerate("abc")] == [1, 2, 3]
    assert face.call(0, "get", "b") is None
    assert face.partition(2).get("c") == 3
    assert face.call_all("rank") == [0, 1, 2]
    assert face.partitions() == 3


def test_arguments_arrive_as_they_were_given(face):
    """Positional, by keyword, many, none; the names that a call has for itself can be keywords, but for timeout."""
    assert face.call(1, "echo") == [[], {}]
    assert face.call(1, "echo", 1, None, [2.5], x={"y": b"z"}) == [[1, None, [2.5]], {"x": {"y": b"z"}}]
    assert face.call(1, "echo", partition=5, method="m") == [[], {"partition": 5, "method": "m"}]
    assert face.call_all("echo", 7, method="m") == [[[7], {"method": "m"}]] * 3
    assert face.partition(1).echo(1, a=2, timeout=LONG) == [[1], {"a": 2}]


def test_a_partition_may_be_any_integer(face):
    """``hash(key) % n`` of an array of keys gives numpy's integers."""
    import numpy

    assert face.call(numpy.int64(1), "get", "b") == 2
    assert face.call(True, "get", "b") == 2


def test_a_partition_proxy_is_no_trap_for_those_who_look_at_it(face):
    """copy, pickle, notebooks and hasattr ask for special names: none of them is a call."""
    proxy = face.partition(1)
    assert repr(proxy) == "<partition 1>"
    assert not hasattr(proxy, "__array__")
    assert not hasattr(proxy, "__deepcopy__")


@pytest.mark.parametrize("timeout", [100_000.0, 10_000_000.0, float("inf")])
def test_a_timeout_may_be_very_long(face, timeout):
    """A day, four months, for ever: the field that carries it has 32 bits of milliseconds."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(face.call(0, "get", "a", timeout=timeout)), daemon=True)
    thread.start()
    thread.join(5.0)
    face.close()
    thread.join(LONG)
    assert got == [1]


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 1e-9])
@pytest.mark.parametrize("used", [False, True])
def test_a_timeout_without_time_is_over_at_once(face, timeout, used):
    """Also on a connection that is there already. It is told as what it is, and not as the loss of the driver."""
    if used:
        face.call(1, "rank")
    began = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        face.call(1, "wait", timeout=timeout)
    assert time.monotonic() - began < LATE
    if timeout <= 0:
        assert "no time is left for it" in str(caught.value)
        assert (caught.value.rank, caught.value.method, caught.value.definite) == (1, "wait", True)
    switches.gate.set()
    assert face.call(1, "rank") == 1


@pytest.mark.parametrize("timeout", [0, -1.0, 1e-9])
@pytest.mark.parametrize("used", [False, True])
def test_many_calls_without_time_end_in_their_places(face, timeout, used):
    """return_errors=True: each is told as a call that was not made, though nobody knows yet who would have run it."""
    if used:
        face.refresh()
    calls = [(1, "x"), (0, "y"), (1, "z")]
    found = face.call_many("run", calls, timeout=timeout, return_errors=True)
    assert [type(one) for one in found] == [CallTimeout] * 3
    assert [(one.rank, one.method, one.definite) for one in found] == [(rank, "run", True) for rank, _ in calls]
    if used:
        found = face.call_all("rank", timeout=timeout, return_errors=True)
        assert [type(one) for one in found] == [CallTimeout] * 3
    else:  # how many there are is not known either, unless an asyncio client has been told meanwhile
        with contextlib.suppress(CallTimeout):
            found = face.call_all("rank", timeout=timeout, return_errors=True)
            assert [type(one) for one in found] == [CallTimeout] * 3
    assert not switches.runs
    assert face.call_all("rank") == [0, 1, 2]


def test_a_call_without_time_to_connect_says_next_to_nothing_of_its_server(cluster, face_type, monkeypatch):
    """A second later it is tried straight again, and not after the minute of a server that cannot be reached."""
    options = ClientOptions(timeout=LONG, local=False)
    with face_type(cluster.coordinator.get_url(), cluster.coordinator.run_id, options) as face:
        face.refresh()
        member = face.client._routes.calls.members[1]
        monkeypatch.setattr(lane, "connect", out_of_time)
        monkeypatch.setattr(LoopLane, "open", out_of_time_too)
        with pytest.raises((CallTimeout, Unavailable)):
            face.call(1, "rank", timeout=0.003)
        reach = (face.client._lines if face.asynchronous else face.client._lanes._ways)._reach
        assert reach._again.get((member.endpoint, member.incarnation), 0.0) < time.monotonic() + 1.0


def out_of_time(*_: Any) -> Any:
    raise TimeoutError("no time left to connect")


async def out_of_time_too(*_: Any) -> None:
    out_of_time()


# --------------------------------------------------------------------------------------------- deadlines


def test_an_answer_that_comes_too_late_goes_to_nobody(face):
    """The call timed out; the next call on the same connection gets its own answer."""
    with pytest.raises(CallTimeout):
        face.call(1, "wait", "first", timeout=0.1)
    switches.gate.set()
    assert face.call(1, "wait", "second") == "second"
    assert face.call(1, "get", "b") == 2


def test_call_all_has_one_deadline(cluster, face):
    """Two partitions that hang do not take two timeouts, nor does one that hangs behind one that was slow."""
    began = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        face.call_all("wait", timeout=0.5)
    assert time.monotonic() - began < 0.5 + LATE
    assert caught.value.rank == 0


def test_call_all_calls_the_others_when_one_fails(face):
    """The error is the first one in the order of the partitions."""

    def ran() -> bool:
        return switches.runs["wait"] == 3

    with pytest.raises(CallTimeout):
        face.call_all("wait", timeout=0.3)
    wait_until(ran)
    switches.gate.set()
    assert face.call_all("rank") == [0, 1, 2]


def test_a_call_waits_for_a_partition_that_comes_back_within_its_deadline(cluster, face):
    """Its server left; half a second later another one serves."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    timer = threading.Timer(0.5, cluster.launch, (1, 1))
    timer.start()
    assert face.call(1, "run", "x") == 1
    timer.join()


# ------------------------------------------------------------------------------------- many at once, the end


def test_close_ends_the_calls_that_wait(cluster, face):
    """In other threads, long before their timeout."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            face.call(1, "wait", timeout=1000.0)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    switches.entered.wait(LONG)
    face.close()
    thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(caught[0], (CallOutcomeUnknown, Unavailable))


def test_many_calls_at_once_get_their_own_answers(face):
    """Two hundred callers of three servers; now and then one whose method fails."""

    def call(number: int) -> Any:
        if number % 50 == 7:
            return face.begin(1, "fail", str(number))
        return face.begin(number % 3, "echo", number)

    for number, begun in [(number, call(number)) for number in range(200)]:
        if number % 50 == 7:
            with pytest.raises(HandlerError, match=str(number)):
                begun.result(LONG)
        else:
            assert begun.result(LONG) == [[number], {}]


def test_large_and_small_messages_share_a_client(face):
    """Requests and replies of four megabytes between small ones: each arrives whole, and at its own caller."""
    large = patterned(4 << 20)
    sent = [large if number % 6 == 0 else number for number in range(24)]
    for one, begun in [(one, face.begin(1, "echo", one)) for one in sent]:
        assert begun.result(LONG) == [[one], {}]


def test_a_closed_client_says_so(face):
    """At once, whatever the timeout of the call; closing twice is harmless."""
    face.call_all("rank")
    face.close()
    face.close()
    for timeout in (None, 5.0):
        with pytest.raises(Unavailable, match="client is closed") as caught:
            face.call(1, "rank", timeout=timeout)
        assert caught.value.definite
    for ask in (lambda: face.call_all("rank"), face.refresh, face.partitions):
        with pytest.raises(Unavailable, match="client is closed"):
            ask()


def test_a_client_that_was_never_used_is_closed(face):
    """It has nothing open, and opens nothing any more."""
    face.close()
    with pytest.raises(Unavailable, match="client is closed"):
        face.call(1, "rank")
