"""``Client.call_many`` and ``call_all``: order, batches, errors one by one, bad input, many servers at once."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy
import pytest
from support.probe import LATE, LONG, PAIRS, Probe, switches
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions, QueryServer, method
from spark_partition_server.errors import (
    CallOutcomeUnknown,
    CallTimeout,
    ClusterClosed,
    HandlerError,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    Unavailable,
)
from spark_partition_server.testing import local_cluster

# ------------------------------------------------------------------------------------------------ answers


def test_answers_come_in_the_order_of_the_calls(client):
    """Whichever partition they belong to, and however often one is called."""
    calls = [(2, "c"), (0, "a"), (1, "b"), (0, "b"), (2, "c"), (1, "a")]
    assert client.call_many("get", calls) == [3, 1, 2, None, 3, None]
    assert client.call_many("get", iter([[1, "b"], (0, "a")])) == [2, 1]
    assert client.call_many("get", []) == []


def test_any_number_of_arguments_and_every_kind_of_integer(client):
    """None, one, many; numpy's integers, of a hash modulo the number of partitions."""
    calls = [(numpy.int64(1),), (True, 1), (1, 1, [2, {"x": b"y"}], None)]
    assert client.call_many("echo", calls) == [[[], {}], [[1], {}], [[1, [2, {"x": b"y"}], None], {}]]


@pytest.mark.parametrize("count", [1, 16, 17, 255, 256, 257, 1024, 1025, 5000])
def test_as_many_as_there_are(client, count):
    """More than one batch, more than a window of batches, on three servers at once."""
    calls = [(number % 3, number) for number in range(count)]
    for _ in range(2):
        assert client.call_many("echo", calls) == [[[number], {}] for number in range(count)]


def test_large_arguments_and_results_travel_too(client):
    """Each a message of its own where it has to be; all of them together are over every limit of a batch."""
    large = [bytes([number]) * 700_000 for number in range(12)]
    calls = [(number % 3, value) for number, value in enumerate(large)]
    assert client.call_many("echo", calls) == [[[value], {}] for value in large]
    mixed = [(1, large[3]), *((1, number) for number in range(600)), (1, large[4])]
    assert client.call_many("echo", mixed) == [[list(call[1:]), {}] for call in mixed]


def test_more_arrays_than_one_message_carries(client):
    """Both ways: 61 are the most; and the client learns how many results of a method fit one answer."""
    arrays = [numpy.arange(number, number + 3) for number in range(300)]
    answers = client.call_many("echo", [(1, array) for array in arrays])
    assert all((answer[0][0] == array).all() for answer, array in zip(answers, arrays, strict=True))
    pairs = client.call_many("echo", [(1, array, array) for array in arrays[:100]])
    assert all((answer[0][1] == array).all() for answer, array in zip(pairs, arrays, strict=False))
    assert client._sizes.of("echo") <= 30


class Arrays(QueryServer):
    """Its results are large, its arguments are not."""

    @method
    def fetch(self, number: int) -> Any:
        switches.runs[str(number)] += 1
        return numpy.full(4, number)

    @method(idempotent=True)
    def grow(self, number: int) -> Any:
        return [numpy.full(2, number)] * number


def test_results_that_are_arrays_run_once_each():
    """Sixteen runs show how many fit; not one of the others is run in vain."""
    switches.reset()
    with local_cluster(Arrays(), [[]]) as cluster:
        client = cluster.client(timeout=LONG)
        got = client.call_many("fetch", [(0, number) for number in range(700)])
        assert [int(array[0]) for array in got] == list(range(700))
        assert set(switches.runs.values()) == {1}


def test_results_that_grow_are_repeated_in_smaller_batches():
    """An answer had no room for them; the method may run twice, so nobody notices."""
    with local_cluster(Arrays(), [[]]) as cluster:
        client = cluster.client(timeout=LONG)
        got = client.call_many("grow", [(0, number) for number in range(60)])
        assert [len(arrays) for arrays in got] == list(range(60))


def test_call_all_and_call_many_use_every_server_at_once(cluster, client):
    """One that hangs holds nobody up: the others have answered long before it does."""
    done: list[Any] = []

    def call() -> None:
        done.append(client.call_many("wait", [(0, "slow")], timeout=LONG))

    thread = threading.Thread(target=call)
    thread.start()
    assert switches.entered.wait(LONG)
    calls = [(0, "late"), *((rank, number) for number in range(2000) for rank in (1, 2))]
    with pytest.raises(CallTimeout) as caught:
        client.call_many("run", [(rank, f"{rank}-{argument}") for rank, argument in calls], timeout=1.5)
    assert caught.value.rank == 0
    assert sum(switches.runs.values()) == 4001  # and the one that hangs
    switches.gate.set()
    thread.join(LONG)
    assert done == [["slow"]]


# ------------------------------------------------------------------------------------------------ errors


def test_the_first_error_in_order_is_raised_and_the_others_have_been_called(client):
    """It says which of the calls it was."""
    calls = [(0, "x"), (1, "no"), (2, "y"), (1, "z")]
    with pytest.raises(HandlerError, match=r"partition 0 .*raised ValueError: x; this was calls\[0\]"):
        client.call_many("fail", calls)
    with pytest.raises(InvalidArguments, match=r"do not fit.*this was calls\[1\]") as caught:
        client.call_many("run", [(0, "a"), (1,), (2, "b", "c"), (1, "d")])
    assert caught.value.rank == 1
    assert switches.runs == {"a": 1, "d": 1}


def test_return_errors_puts_them_where_the_results_would_be(client):
    """Nothing is raised, and nothing else is lost."""
    got = client.call_many("run", [(0, "a"), (1,), (2, "b"), (1, "c", 4)], return_errors=True)
    assert [type(one) for one in got] == [int, InvalidArguments, int, InvalidArguments]
    got = client.call_many("fail", [(1, "x"), (2, "y")], return_errors=True)
    assert [(type(one), one.remote_message, one.rank) for one in got] == [
        (HandlerError, "x", 1),
        (HandlerError, "y", 2),
    ]
    got = client.call_all("fail", "z", return_errors=True)
    assert [(type(one), one.rank) for one in got] == [(HandlerError, rank) for rank in range(3)]
    with pytest.raises(HandlerError) as caught:
        client.call_all("fail", "z")
    assert caught.value.rank == 0


def test_a_method_that_is_not_there(client):
    """Every call fails, and is told so."""
    got = client.call_many("nothing", [(rank, 1) for rank in (0, 1, 2, 1)], return_errors=True)
    assert all(isinstance(one, MethodNotFound) and one.definite for one in got)


# ---------------------------------------------------------------------------------------------- bad input


def raising() -> Any:
    yield (0, "a")
    raise KeyError("the generator's own")


BAD: list[tuple[Any, type[Exception], str]] = [
    ([(0, "a"), 7], TypeError, r"calls\[1\] is 7, and a tuple \(partition, argument, ...\) is wanted"),
    ([(0, "a"), ()], TypeError, r"calls\[1\] is empty"),
    (["ab"], TypeError, r"calls\[0\] is 'ab'"),
    ([(0, "a"), ("alice", 1)], TypeError, r"calls\[1\]: the partition must be an integer, not 'alice'"),
    ([(0, "a"), (1.0, 1)], TypeError, r"calls\[1\]: the partition must be an integer, not 1.0"),
    ([(0, "a"), (None, 1)], TypeError, r"calls\[1\]: the partition must be an integer, not None"),
    ([(0, "a"), (1, "b"), (3, "c")], InvalidArguments, r"partition 3.*the cluster has 3; this was calls\[2\]"),
    ([(0, "a"), (-1, "b")], InvalidArguments, r"partition -1.*this was calls\[1\]"),
    ([(0, "a"), (1, 2, {3})], TypeError, r"calls\[1\]: argument \[1\] is of type builtins.set"),
    ([(1, 1)] * 400 + [(1, object())], TypeError, r"calls\[400\]: argument \[0\] is of type builtins.object"),
    ([(0, "a"), (1, 1 << 70)], TypeError, r"calls\[1\]: argument \[0\] is an int of 71 bits"),
    (raising(), KeyError, "the generator's own"),
    (5, TypeError, "not iterable"),
    (None, TypeError, "not iterable"),
]


@pytest.mark.parametrize(("calls", "kind", "text"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_bad_input_means_that_nothing_is_sent(client, calls, kind, text):
    """Also when what is wrong comes last, and whether errors are to be returned or raised: it is the caller's."""
    for return_errors in (False, True):
        with pytest.raises(kind, match=text):
            client.call_many("run", raising() if kind is KeyError else calls, return_errors=return_errors)
    assert not switches.runs
    assert client.call_many("run", [(0, "fine")]) == [1]


@pytest.mark.parametrize("name", [None, 5, b"get", "", "x" * 257])
def test_what_is_no_name_of_a_method(client, name):
    """For every way to call; ``TypeError`` for what is no text, and no hang for any of it."""
    ways = [
        lambda: client.call(1, name),
        lambda: client.call_all(name),
        lambda: client.call_many(name, [(1, 1)]),
    ]
    for way in ways:
        with pytest.raises(MethodNotFound if isinstance(name, str) else TypeError, match="method"):
            way()


def test_an_argument_over_the_limit(cluster):
    """Of one call among many: nothing is sent."""
    options = ClientOptions(timeout=LONG, message_bytes_max=50_000)
    with Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, options) as client:
        with pytest.raises(MessageTooLarge, match="limit is 50000") as caught:
            client.call_many("run", [(0, "a"), (1, bytes(60_000)), (2, "b")])
        assert caught.value.definite
        assert not switches.runs


def test_more_arrays_in_one_call_than_a_message_carries(client):
    """It cannot be split."""
    with pytest.raises(TypeError, match=r"calls\[1\].*more than 61 arrays"):
        client.call_many("run", [(0, "a"), (1, [numpy.zeros(1)] * 62)])
    assert not switches.runs


# ----------------------------------------------------------------------------------- deadlines, lost servers


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_without_time_nothing_is_sent(client, timeout):
    """And the error is definite: it was certainly not run."""
    client.call_all("rank")
    began = time.monotonic()
    got = client.call_many("run", [(0, "a"), (1, "b")], timeout=timeout, return_errors=True)
    assert time.monotonic() - began < LATE
    assert all(isinstance(one, CallTimeout) and one.definite for one in got)
    assert not switches.runs


def test_at_the_deadline_what_is_under_way_is_told_from_what_was_never_sent(cluster, client):
    """The server hangs in the first run of the first batch: four batches have left, the others have not."""
    client.call_many("echo", [(1, 1)])
    client._sizes.learn("wait", 1, 1, 0)
    calls = [(1, f"{number}") for number in range(256 * 5)]
    began = time.monotonic()
    got = client.call_many("wait", calls, timeout=0.5, return_errors=True)
    assert time.monotonic() - began < 0.5 + LATE
    assert all(isinstance(one, CallTimeout) and one.rank == 1 for one in got)
    assert [one.definite for one in got] == [False] * 1024 + [True] * 256
    switches.gate.set()
    assert client.call(1, "get", "b") == 2
    assert sum(switches.runs.values()) <= 256  # the batches that waited were taken back


def test_a_batch_whose_server_is_lost_is_repeated_if_it_may_be(client):
    """Each of three servers cuts its first caller off."""
    calls = [(rank, "x") for rank in range(3) for _ in range(5)]
    got = client.call_many("cut_and_repeat", calls)
    assert len(set(got)) == 15


def test_a_batch_whose_server_is_lost_has_an_unknown_outcome_otherwise(client):
    """For its own runs alone: those on other servers are answered."""
    assert client.call_many("run", [(0, "0"), (1, "1"), (2, "2")]) == [1, 1, 1]
    got = client.call_many("cut", [(0, "x"), (0, "y")], return_errors=True)
    assert all(isinstance(one, CallOutcomeUnknown) and not one.definite for one in got)
    assert sorted(client.call_many("cut", [(0, "x"), (1, "x"), (2, "x")])) == [2, 3, 4]


def test_calls_wait_for_a_partition_that_comes_back(cluster, client):
    """Within the deadline; the others do not wait for it."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    timer = threading.Timer(0.5, cluster.launch, (1, 1))
    timer.start()
    assert client.call_many("run", [(0, "a"), (1, "b"), (2, "c")] * 2) == [1, 1, 1, 2, 2, 2]
    assert client.call_all("rank") == [0, 1, 2]
    timer.join()


def test_a_partition_that_nobody_serves(cluster, client):
    """Its calls fail by the deadline, in the error that they had; the others have been answered."""
    cluster.coordinator.shutdown_host(1)
    wait_until(lambda: 1 not in cluster.coordinator.hosts)
    got = client.call_many("run", [(0, "a"), (1, "b"), (2, "c")], timeout=0.4, return_errors=True)
    assert (got[0], got[2]) == (1, 1)
    assert isinstance(got[1], Unavailable)
    assert got[1].definite
    got = client.call_all("rank", timeout=0.4, return_errors=True)
    assert (got[0], got[2]) == (0, 2)
    assert isinstance(got[1], Unavailable)


def test_a_cluster_that_is_over_is_told_whatever_is_returned(cluster, client):
    """It is the end of all calls and not the error of one."""
    cluster.coordinator.shutdown_hosts("maintenance")
    wait_until(lambda: not cluster.coordinator.hosts)
    for return_errors in (False, True):
        with pytest.raises(ClusterClosed, match="maintenance"):
            client.call_many("get", [(1, "b")], return_errors=return_errors)
        with pytest.raises(ClusterClosed, match="maintenance"):
            client.call_all("rank", return_errors=return_errors)


def test_close_ends_what_waits(cluster, client):
    """In another thread, long before its deadline."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.call_many("wait", [(0, "a"), (1, "b"), (2, "c")], timeout=1000.0)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: sum(switches.runs.values()) == 3)
    client.close()
    thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(caught[0], (CallOutcomeUnknown, Unavailable))
    with pytest.raises(Unavailable, match="client is closed"):
        client.call_many("get", [(1, "b")])


def test_servers_of_another_limit_are_no_matter(cluster):
    """The pairs of this file, with a client of its own: the first call of all may be a batch."""
    with local_cluster(Probe(), PAIRS) as other:
        assert other.client().call_many("get", [(1, "b"), (0, "a")]) == [2, 1]
