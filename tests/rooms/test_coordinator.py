"""The coordinator on real sockets: who serves what, what everybody is told, and its end."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from support.joining import Member, coordinating, hello
from support.wait import wait_until

from spark_partition_server import Coordinator
from spark_partition_server.errors import CoordinatorLost, NotStarted, PortUnavailable, TooFewDescriptors
from spark_partition_server.net import control
from spark_partition_server.net.endpoints import bind_tcp
from spark_partition_server.options import ClusterOptions
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Goodbye, Heartbeat, Lookup, Message, Refuse, Shutdown, View, Welcome

LOCAL = "127.0.0.1"
LONG = 20.0


def refused(message: Message) -> int:
    """The code of a REFUSE."""
    assert isinstance(message, Refuse), message
    return message.code


# ------------------------------------------------------------------------------------------ members


def test_members_join_until_the_cluster_is_full():
    """hosts and full_cluster follow; the original's attributes."""
    with coordinating(2) as coordinator, Member(coordinator) as one, Member(coordinator) as two:
        assert (coordinator.hosts, coordinator.full_cluster, coordinator.was_full) == ({}, False, False)
        assert isinstance(one.join(1), Welcome)
        assert coordinator.wait(lambda: len(coordinator.hosts) == 1, LONG)
        assert (coordinator.hosts, coordinator.full_cluster) == ({1: (LOCAL, 1001)}, False)
        assert isinstance(two.join(0), Welcome)
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        assert coordinator.hosts == {0: (LOCAL, 1000), 1: (LOCAL, 1001)}
        two.say(Goodbye(0, 1, 0, coordinator.token, Code.OK))
        assert coordinator.wait(lambda: not coordinator.full_cluster, LONG)
        assert coordinator.hosts == {1: (LOCAL, 1001)}
        assert coordinator.was_full


def test_a_coordinator_that_knows_no_number_of_partitions():
    """Any rank may join, and the cluster is neither full nor not."""
    with coordinating(None) as coordinator, Member(coordinator) as member:
        assert coordinator.full_cluster is None
        assert isinstance(member.join(12345), Welcome)
        assert coordinator.wait(lambda: 12345 in coordinator.hosts, LONG)
        assert coordinator.full_cluster is None


def test_the_callback_is_told_of_every_registration():
    """A dict with the original's keys; a later life has an old entry."""
    calls: list[dict[str, Any]] = []
    with coordinating(2) as coordinator:
        coordinator.set_register_callback(calls.append)
        with Member(coordinator) as one, Member(coordinator) as two, Member(coordinator) as three:
            one.join(0)
            two.join(1)
            three.join(0, incarnation=2, port=77)
            assert coordinator.wait(lambda: len(calls) == 3, LONG)
            coordinator.set_register_callback(None)
            one.join(0, incarnation=3)
        first, second, again = (LOCAL, 1000), (LOCAL, 1001), (LOCAL, 77)
        assert calls == [
            {"partition_ind": 0, "old_entry": None, "new_entry": first, "full_cluster": False},
            {"partition_ind": 1, "old_entry": None, "new_entry": second, "full_cluster": True},
            {"partition_ind": 0, "old_entry": first, "new_entry": again, "full_cluster": True},
        ]


def test_a_callback_that_raises_harms_nobody(caplog):
    """The member is welcome, and whoever waits for it is woken."""

    def callback(entry: dict[str, Any]) -> None:
        raise ZeroDivisionError("a callback's mistake")

    with coordinating(1) as coordinator, Member(coordinator) as member:
        coordinator.set_register_callback(callback)
        timer = threading.Timer(0.2, member.say, (hello(coordinator, 0),))
        timer.start()
        began = time.monotonic()
        assert coordinator.wait(lambda: bool(coordinator.full_cluster), 5.0)
        assert time.monotonic() - began < 4.0, "nobody was woken"
        assert isinstance(member.hear(), Welcome)
        timer.join()
    assert "a callback's mistake" in caplog.text


def test_a_wrong_token_is_refused():
    """Whoever does not know it cannot take a partition over, nor end one's membership."""
    with coordinating(2) as coordinator, Member(coordinator) as member, Member(coordinator) as stranger:
        member.join(0)
        for token in (b"", b"x" * 32, coordinator.token[:-1]):
            assert refused(stranger.join(0, incarnation=9, token=token)) == Code.BAD_TOKEN
            assert refused(stranger.ask(Goodbye(0, 1, 0, token, Code.OK))) == Code.BAD_TOKEN
        assert coordinator.hosts == {0: (LOCAL, 1000)}


def test_a_member_that_is_silent_is_lost(caplog):
    """No heartbeat for the length of its lease; the other one is kept."""
    options = ClusterOptions(heartbeat_interval=0.05, lease=1.0)  # this process may not run for a good part of that
    with coordinating(2, options=options) as coordinator, Member(coordinator) as one, Member(coordinator) as two:
        one.join(0)
        two.join(1)

        def lost() -> bool:
            one.ask(Heartbeat(0, 1, 1))
            return 1 not in coordinator.hosts

        wait_until(lost)
        assert coordinator.hosts == {0: (LOCAL, 1000)}
        assert refused(two.ask(Heartbeat(1, 1, 1))) == Code.NOT_MEMBER
    assert "lost partition=1" in caplog.text


def test_clients_are_told_who_serves_what():
    """LOOKUP is answered with the members and the methods that may be repeated."""
    with coordinating(2, idempotent=["get"]) as coordinator, Member(coordinator) as one, Member(coordinator) as client:
        one.join(1)
        view = client.ask(Lookup(0))
        assert isinstance(view, View)
        assert (view.size, view.meta["idempotent"]) == (2, ["get"])
        assert [member.rank for member in codec.members_of(view)] == [1]


def test_a_failed_initialisation_is_kept(caplog):
    """For whoever waits for the cluster to be full."""
    with coordinating(2) as coordinator, Member(coordinator) as member:
        goodbye = Goodbye(1, 1, 3, coordinator.token, Code.INIT_FAILED, "no luck", "Traceback ...", "host")
        member.say(goodbye)
        assert coordinator.wait(lambda: bool(coordinator.init_failures), LONG)
        assert coordinator.init_failures == [goodbye]
        assert coordinator.hosts == {}
    assert "no luck" in caplog.text


@pytest.mark.parametrize("verbose", [False, True])
def test_registrations_are_logged_when_that_is_wanted(caplog, verbose):
    """At level INFO, or else at DEBUG."""
    caplog.set_level(logging.INFO, "spark_partition_server")
    with coordinating(1, verbose=verbose) as coordinator, Member(coordinator) as member:
        member.join(0)
        coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
    assert ("joined partition=0" in caplog.text) == verbose


def test_the_hosts_can_be_printed(capsys):
    """In the order of the partitions; the original's method."""
    with coordinating(2) as coordinator, Member(coordinator) as one, Member(coordinator) as two:
        one.join(1)
        two.join(0)
        coordinator.wait(lambda: bool(coordinator.full_cluster), LONG)
        coordinator.print_hosts()
    assert capsys.readouterr().out == "0 - 127.0.0.1:1000\n1 - 127.0.0.1:1001\n"


# ------------------------------------------------------------------------------------------ the end


def test_one_member_is_asked_to_leave():
    """The one that was meant; a partition that nobody serves is no error."""
    with coordinating(2) as coordinator, Member(coordinator) as one, Member(coordinator) as two:
        one.join(0)
        two.join(1)
        coordinator.shutdown_host(7)
        coordinator.shutdown_host(1, "enough", grace=2.5)
        assert two.hear() == Shutdown("enough", 2500)
        assert one.ask(Heartbeat(0, 1, 1)) == Heartbeat(0, 1, 1)


def test_all_members_are_asked_to_leave_and_nobody_joins_any_more():
    """A server that starts late, a client that comes late: both learn that it is over."""
    with coordinating(2) as coordinator, Member(coordinator) as one, Member(coordinator) as late:
        one.join(0)
        coordinator.shutdown_hosts("that is all", grace=0.0)
        assert one.hear() == Shutdown("that is all", 0)
        assert late.join(1) == Refuse(Code.CLOSED, "that is all")
        assert late.ask(Lookup(0)) == Refuse(Code.CLOSED, "that is all")


def test_a_job_that_failed_is_told_to_clients():
    """With Spark's own words."""
    with coordinating(1) as coordinator, Member(coordinator) as client:
        coordinator.fail("Job aborted: executor lost")
        assert client.ask(Lookup(0)) == Refuse(Code.JOB_FAILED, "Job aborted: executor lost")


def test_stop_is_harmless_twice_and_gives_the_port_back():
    """Before the start too."""
    Coordinator(1).stop()
    with coordinating(1) as coordinator, Member(coordinator) as member:
        member.join(0)
        coordinator.stop()
        coordinator.stop()
        assert (coordinator.hosts, coordinator.full_cluster) == ({}, False)
        with bind_tcp(*_place(coordinator)):
            pass


def _place(coordinator: Coordinator) -> tuple[str, tuple[int, int]]:
    assert coordinator.address is not None
    host, port = coordinator.address
    return host, (port, port)


def test_what_needs_a_running_coordinator_says_so():
    """Before ``start`` there is no address either."""
    coordinator = Coordinator(3)
    assert (coordinator.address, coordinator.get_url(), coordinator.full_cluster) == (None, None, False)
    for ask in (coordinator.shutdown_hosts, lambda: coordinator.shutdown_host(0), lambda: coordinator.fail("x")):
        with pytest.raises(NotStarted):
            ask()


def test_whoever_waits_is_told_when_the_coordinator_breaks(monkeypatch):
    """A bug of ours must not be a wait without end."""
    with coordinating(1) as coordinator, Member(coordinator) as member:
        monkeypatch.setattr(coordinator._membership, "_handlers", None)
        timer = threading.Timer(0.2, member.say, (hello(coordinator, 0),))
        timer.start()
        began = time.monotonic()
        with pytest.raises(CoordinatorLost, match="thread has ended"):
            coordinator.wait(lambda: bool(coordinator.full_cluster), 5.0)
        assert time.monotonic() - began < 4.0, "nobody was woken"
        timer.join()


def test_a_wait_ends_with_its_timeout():
    """And says whether what it waited for is there."""
    with coordinating(1) as coordinator:
        began = time.monotonic()
        assert not coordinator.wait(lambda: False, 0.1)
        assert 0.1 <= time.monotonic() - began < LONG / 2
        assert coordinator.wait(lambda: True, 0.0)


# ------------------------------------------------------------------------------------------ addresses


def test_a_second_start_changes_nothing():
    """The port stays."""
    with coordinating(1) as coordinator:
        before = coordinator.get_url()
        coordinator.start()
        assert coordinator.get_url() == before == f"tcp://{LOCAL}:{coordinator.address[1]}"


def test_ports_of_a_range():
    """The first free one; a full range is an error that names it, and leaves nothing open."""
    with bind_tcp(LOCAL) as taken:
        first = taken.getsockname()[1]
        with coordinating(1, options=ClusterOptions(ports=(first, first + 50))) as coordinator:
            assert first < coordinator.address[1] <= first + 50
        with pytest.raises(PortUnavailable) as caught:
            Coordinator(1, options=ClusterOptions(ports=(first, first))).start()
        assert (caught.value.host, caught.value.ports) == (LOCAL, (first, first))


def test_a_cluster_larger_than_the_limit_of_open_files_is_refused_at_the_start(monkeypatch):
    """Not accepted in part, with a core burnt for the rest; and nothing is left open."""
    monkeypatch.setattr(control.resource, "getrlimit", lambda which: (1000, 1000))
    coordinator = Coordinator(1000)
    with pytest.raises(TooFewDescriptors, match=r"1000 partitions need .* the hard limit is 1000") as caught:
        coordinator.start()
    assert caught.value.needed > caught.value.limit == 1000
    assert coordinator.address is None
    coordinator.shutdown()


def test_the_address_that_is_bound_is_not_the_one_that_is_told():
    """Behind a NAT, in a container."""
    options = ClusterOptions(bind_host="0.0.0.0")
    with coordinating(1, options=options, host="localhost") as coordinator, Member(coordinator) as member:
        assert coordinator.get_url() == f"tcp://localhost:{coordinator.address[1]}"
        assert isinstance(member.join(0), Welcome)


def test_two_coordinators_side_by_side():
    """Each has its own port, token and run; a member of one is a stranger to the other."""
    with coordinating(1) as one, coordinating(1) as two:
        assert one.address != two.address
        assert one.token != two.token
        assert one.run_id != two.run_id
        with Member(one) as member, Member(two) as stranger:
            assert isinstance(member.join(0), Welcome)
            assert refused(stranger.join(0, token=one.token)) == Code.BAD_TOKEN
        with Member(two, run_id=one.run_id) as lost:
            lost.say(hello(two, 0))
            frames = lost.socket.recv_multipart()
            assert codec.decode(frames, frames[0][8:16]).code == Code.WRONG_RUN
        assert one.hosts == {0: (LOCAL, 1000)}
        assert two.hosts == {}


def test_a_token_can_be_given():
    """Else it is drawn, 32 octets."""
    with coordinating(1, token=b"secret") as coordinator, Member(coordinator) as member:
        assert isinstance(member.join(0, token=b"secret"), Welcome)
    assert len(Coordinator(1).token) == 32
