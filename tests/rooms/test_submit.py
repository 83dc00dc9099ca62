"""``Client.submit``: its futures are futures, whoever waits for them, and however."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, as_completed, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pytest
from support.probe import LATE, LONG, switches
from support.threads import at_once
from support.wait import wait_until

from spark_partition_server import Client, ClientOptions
from spark_partition_server.errors import CallTimeout, HandlerError, MessageTooLarge, MethodNotFound, Overloaded

# ----------------------------------------------------------------------------------------------- answers


def test_each_future_gets_its_own_answer(client):
    """A thousand under way at three servers, taken in another order than they were begun."""
    futures = [client.submit(number % 3, "echo", number) for number in range(1000)]
    for number in reversed(range(1000)):
        assert futures[number].result() == [[number], {}]
    assert all(future.done() and not future.running() and not future.cancelled() for future in futures)


def test_a_window_of_calls(client):
    """The plain way: the oldest is waited for, and another one is begun."""
    futures: deque[Future[Any]] = deque()
    for number in range(500):
        if len(futures) == 64:
            before, future = futures.popleft()
            assert future.result() == [[before], {}]
        futures.append((number, client.submit(1, "echo", number)))
    for number, future in futures:
        assert future.result(LONG) == [[number], {}]


def test_a_future_says_whose_it_is(client):
    """For those who take them as they come."""
    future = client.submit(2, "get", "c")
    assert isinstance(future, Future)
    assert (future.rank, future.method) == (2, "get")
    assert future.result() == 3
    assert future.exception() is None


def test_an_error_is_the_futures(client):
    """``result`` raises it, as often as it is asked; ``exception`` returns it; other calls are not concerned."""
    futures = [client.submit(1, "fail", "it broke"), client.submit(1, "get", "b"), client.submit(1, "nothing")]
    for _ in range(2):
        with pytest.raises(HandlerError, match="it broke"):
            futures[0].result()
    assert futures[1].result() == 2
    assert isinstance(futures[2].exception(), MethodNotFound)


def test_what_cannot_be_sent_is_told_at_once(client):
    """Nothing was begun."""
    with pytest.raises(TypeError, match=r"args\[0\] is of type builtins.object"):
        client.submit(1, "echo", object())
    with pytest.raises(TypeError, match="partition must be an integer"):
        client.submit("1", "echo")
    with pytest.raises(MethodNotFound):
        client.submit(1, "")


# ------------------------------------------------------------------------------------ the ways to wait


def test_nobody_has_to_ask_for_the_result(client):
    """A future ends by itself: with its answer, with its error, or at its deadline."""
    futures = [
        client.submit(0, "rank"),
        client.submit(0, "fail", "x"),
        client.submit(1, "wait", timeout=0.3),
    ]
    began = time.monotonic()
    wait_until(lambda: all(future.done() for future in futures))
    assert time.monotonic() - began < 0.3 + LATE
    assert futures[0].result() == 0
    assert isinstance(futures[1].exception(), HandlerError)
    assert isinstance(futures[2].exception(), CallTimeout)


def test_wait_and_as_completed(client):
    """Of ``concurrent.futures``, with futures that are over and others that are not."""
    over = client.submit(0, "rank")
    over.result()
    held = client.submit(1, "wait")
    fast = [client.submit(2, "echo", number) for number in range(50)]
    done, _ = wait([held, over], LONG, FIRST_COMPLETED)
    assert done == {over}
    assert set(as_completed([over, *fast], LONG)) == {over, *fast}
    with pytest.raises(FutureTimeout):
        list(as_completed([held], 0.05))
    switches.gate.set()
    done, left = wait([held, over, *fast], LONG, ALL_COMPLETED)
    assert held in done
    assert not left
    assert held.result() == "wait"


def test_an_event_loop_can_wait(client):
    """``asyncio.wrap_future``: results, errors, and a task's cancellation cancels the call."""
    switches.gate.clear()

    async def ask() -> list[Any]:
        held = client.submit(1, "wait")
        waiting = asyncio.ensure_future(asyncio.wrap_future(held))
        futures = [asyncio.wrap_future(client.submit(2, "echo", number)) for number in range(100)]
        futures.append(asyncio.wrap_future(client.submit(2, "fail", "x")))
        found = await asyncio.gather(*futures, return_exceptions=True)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert held.cancelled()
        return found

    found = asyncio.run(ask())
    switches.gate.set()
    assert found[:-1] == [[[number], {}] for number in range(100)]
    assert isinstance(found[-1], HandlerError)


def test_a_result_can_be_waited_for_a_while(client):
    """The wait ends, the call goes on."""
    future = client.submit(1, "wait")
    began = time.monotonic()
    for ask in (future.result, future.exception):
        with pytest.raises(FutureTimeout):
            ask(timeout=0.05)
        with pytest.raises(FutureTimeout):
            ask(0)
    assert time.monotonic() - began < 0.1 + LATE
    assert not future.done()
    switches.gate.set()
    assert future.result(LONG) == "wait"


@pytest.mark.parametrize("timeout", [0, -1, 1e-9, 0.2])
def test_a_future_ends_by_its_deadline(client, timeout):
    """Whether somebody waits or not."""
    client.submit(1, "rank").result()
    began = time.monotonic()
    asked, left = client.submit(1, "wait", timeout=timeout), client.submit(1, "wait", timeout=timeout)
    assert isinstance(asked.exception(), CallTimeout)
    wait_until(left.done)
    assert time.monotonic() - began < max(timeout, 0) + LATE
    assert isinstance(left.exception(), CallTimeout)
    switches.gate.set()
    assert client.submit(1, "rank").result() == 1


# ------------------------------------------------------------------------------------------- callbacks


def test_callbacks_run_once_each(client):
    """Added before the end and after it; in the order in which they were added."""
    called: list[Any] = []
    future = client.submit(1, "wait")
    future.add_done_callback(lambda one: called.append(("first", one.result())))
    future.add_done_callback(lambda one: called.append(("second", one.result())))
    switches.gate.set()
    wait_until(lambda: len(called) == 2)
    future.add_done_callback(lambda one: called.append(("late", one.result())))
    assert called == [("first", "wait"), ("second", "wait"), ("late", "wait")]


def test_a_callback_that_raises_is_logged(client, caplog):
    """And the others run, and later answers are read."""
    called = threading.Event()

    def fail(future: Any) -> None:
        raise ValueError("of the callback")

    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future = client.submit(1, "wait")
        future.add_done_callback(fail)
        future.add_done_callback(lambda one: called.set())
        switches.gate.set()
        assert called.wait(LONG)
    assert "of the callback" in caplog.text
    assert client.submit(1, "rank").result() == 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_callback_may_submit_and_wait(client, waits):
    """A chain of calls, each begun by the end of the one before, each with one that is waited for inside."""
    found: list[Any] = []
    over = threading.Event()

    def again(future: Any) -> None:
        found.append(future.result())
        if len(found) == 50:
            over.set()
            return
        assert client.submit(len(found) % 3, "echo", "inside").result(LONG) == [["inside"], {}]
        client.submit(1, "echo", len(found)).add_done_callback(again)

    first = client.submit(1, "echo", 0)
    first.add_done_callback(again)
    if waits:
        first.result()
        assert client.submit(1, "echo", "other").result() == [["other"], {}]
    assert over.wait(LONG)
    assert found == [[[number], {}] for number in range(50)]


# --------------------------------------------------------------------------------------------- threads


def test_many_threads_submit(client):
    """Sixteen at once over the same connections: each gets its own answers, in every way of waiting."""

    def work(number: int) -> None:
        for count in range(10):
            futures = {client.submit(one % 3, "echo", number, count, one): one for one in range(20)}
            if number % 3 == 0:
                wait(futures, LONG)
            for future in as_completed(futures, LONG) if number % 3 == 1 else futures:
                assert future.result(LONG) == [[number, count, futures[future]], {}]

    at_once(16, work)


def test_threads_that_wait_for_the_same_server_do_not_wait_for_each_other(client):
    """One waits for a slow method elsewhere, one for its own answer only: who reads for whom does not matter."""
    slow = client.submit(1, "wait")
    waiting = threading.Thread(target=slow.result)
    waiting.start()
    results = [client.submit(2, "rank").result() for _ in range(20)]
    also = [client.submit(2, "rank") for _ in range(20)]
    assert results == [future.result() for future in also] == [2] * 20
    assert not slow.done()
    switches.gate.set()
    waiting.join(LONG)
    assert slow.done()


# ---------------------------------------------------------------------------------------------- bounds


def client_with(cluster: Any, **options: Any) -> Client:
    return Client(cluster.coordinator.get_url(), cluster.coordinator.run_id, ClientOptions(timeout=LONG, **options))


def test_too_many_calls_are_refused(cluster):
    """Definite and at once; there is room again when one has ended, whatever its end was."""
    with client_with(cluster, calls_max=3) as client:
        held = [client.submit(1, "wait") for _ in range(3)]
        with pytest.raises(Overloaded, match=r"3 calls .* take results before you submit more") as caught:
            client.submit(2, "rank")
        assert caught.value.definite
        assert caught.value.rank == 2
        assert held[2].cancel()
        assert client.submit(2, "rank").result() == 2
        switches.gate.set()
        assert [future.result() for future in held[:2]] == ["wait", "wait"]
        assert [future.result() for future in [client.submit(2, "rank") for _ in range(3)]] == [2, 2, 2]


def test_too_many_octets_are_refused(cluster):
    """A server that does not read cannot fill the client's memory; a large request that is alone is sent."""
    with client_with(cluster, calls_bytes_max=1 << 20) as client:
        held = [client.submit(1, "wait"), client.submit(1, "echo", bytes(900_000))]
        with pytest.raises(Overloaded, match="calls_bytes_max"):
            client.submit(1, "echo", bytes(900_000))
        switches.gate.set()
        assert held[1].result() == [[bytes(900_000)], {}]
        assert client.submit(1, "echo", bytes(3 << 20)).result() == [[bytes(3 << 20)], {}]


def test_a_reply_over_the_limit_is_the_culprits_alone(cluster):
    """The connection ends with it. Calls beside it are repeated where they may be, else their outcome is unknown."""
    with client_with(cluster, message_bytes_max=10_000) as client:
        client.submit(1, "rank").result()
        futures = [client.submit(1, "get", "b"), client.submit(1, "large", 90_000), client.submit(1, "get", "b")]
        error = futures[1].exception()
        assert isinstance(error, MessageTooLarge), error
        assert not error.definite
        assert [futures[0].result(), futures[2].result()] == [2, 2]
