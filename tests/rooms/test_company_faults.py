"""What goes wrong among ranks ends on all of them, soon, in an error that says who and what."""

from __future__ import annotations

import signal

import pytest
from support import programs
from support.company import company, performed
from support.wait import wait_until

from spark_partition_server import ClusterOptions, RankFailed, RankLost
from spark_partition_server.net.clock import monotonic
from spark_partition_server.peer_run import Outcome, values_of
from spark_partition_server.spark.shipping import unpacked


@pytest.mark.parametrize("local", [True, False], ids=["one host", "tcp"])
def test_a_rank_that_is_killed_in_a_collective_is_named_on_all_others(local):
    """Promise: whoever dies, nobody hangs. Provoked: SIGKILL between two large reductions; the timeout is a minute."""
    with company(4, programs.dying, 60.0, local=local) as made:
        assert made.ranks[3].process.wait(60) == -signal.SIGKILL
        died = monotonic()
        outcomes = [made.outcome(rank, 10.0) for rank in range(3)]
        assert monotonic() - died < 10  # the promise is two seconds, on a machine that has time
    assert [unpacked(one.value) for one in outcomes] == [("RankLost", (3,))] * 3


def test_the_survivors_agree_and_go_on():
    """Promise: Agree gives all the same, Shrink a communicator of those that are left. Provoked: SIGKILL of rank 1."""
    with company(4, programs.others_go_on) as made:
        values = [made.value(rank) for rank in (0, 2, 3)]
    assert values == [(0b010, 3, [0, 1, 2])] * 3


def test_an_exception_on_one_rank_ends_the_others():
    """Promise: the run ends with the traceback of the rank to blame. Provoked: it raises while others are in a barrier;
    their timeout is a minute."""
    with company(3, programs.failing, 60.0) as made:
        outcomes = [made.outcome(rank, 20.0) for rank in range(3)]
    assert [type(one.error).__name__ for one in outcomes if one.rank != 1] in (
        ["CommRevoked", "CommRevoked"],
        ["CommRevoked", "RankLost"],
        ["RankLost", "CommRevoked"],
        ["RankLost", "RankLost"],
    )
    with pytest.raises(RankFailed, match="raised on rank 1: ValueError: no such thing") as caught:
        values_of(outcomes)
    assert "in failing" in caught.value.remote_traceback


def test_ranks_that_do_not_agree_on_a_call_are_told_both_sides():
    """Promise: never wrong data. Provoked: other collectives, roots, types and lengths on the two ranks."""
    first, second = performed(2, programs.mismatched)
    assert [kind for kind, _ in first] == [kind for kind, _ in second] == ["CollectiveMismatch"] * 4
    for side in (first, second):
        texts = [text for _, text in side]
        assert all(one in texts[0] for one in ("barrier()", "allreduce(object, SUM)", "rank 0", "rank 1"))
        assert all(one in texts[1] for one in ("root=0", "root=1"))
        assert all(one in texts[2] for one in ("float32 x 4", "float64 x 4"))
        assert all(one in texts[3] for one in ("float64 x 4", "float64 x 5"))


def test_a_message_that_nobody_sends_is_a_timeout_that_names_the_sender():
    """Promise: it ends by its deadline, and says what the other side does. Provoked: two ranks that both receive."""
    for rank, (text, missing) in enumerate(performed(2, programs.never_sent, 2.0)):
        assert missing == (1 - rank,)
        assert f"recv(source={1 - rank}, tag={5 + rank})" in text
        assert f"rank {1 - rank}" in text


def test_a_silent_rank_is_lost_when_the_coordinator_says_so():
    """Promise: whose host is gone is named once his lease is over. Provoked: SIGSTOP, and a lease of a second."""
    options = ClusterOptions(heartbeat_interval=0.2, lease=1.0)
    with company(2, programs.waiting, 60.0, options=options) as made:
        wait_until(lambda: made.coordinator.was_full, 20)
        made.signal(1, signal.SIGSTOP)
        assert unpacked(made.outcome(0, 20.0).value) == ("RankLost", (1,))


def test_who_is_to_blame_is_found_among_the_outcomes():
    """Promise: the cause, not its echo. Provoked: a loss beside the revocation that it brought about."""
    lost = RankLost("rank 1 lost", (1,))
    failure = RankFailed(0, "RankLost", "rank 1 lost", "Traceback")
    with pytest.raises(RankLost) as caught:
        values_of([_outcome(2, None), _outcome(0, failure, lost)])
    assert caught.value.__cause__ is failure


def _outcome(rank, failure, error=None):
    return Outcome(rank, b"", failure, error)
