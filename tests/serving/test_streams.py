"""STREAM: a generator goes as far as its reader allows, in slices, and its end is told, whoever ends it."""

from __future__ import annotations

import logging

import numpy
import pytest
from support.answers import Asked, Served, value_of

from spark_partition_server.serving import desk as desk_module
from spark_partition_server.serving.streams import ITEMS_BYTES, ITEMS_COUNT
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Error, Items, Kind, Reply


class Scan:
    """Streams that keep a diary."""

    def __init__(self):
        self.made = []
        self.closed = 0

    def count(self, last, answer=None):
        try:
            for number in range(last):
                self.made.append(number)
                yield number
            return answer
        finally:
            self.closed += 1

    def sizes(self, *sizes):
        for size in sizes:
            yield bytes(size)

    def fails(self, after):
        yield from range(after)
        raise ValueError("enough")

    def unsendable(self):
        yield 1
        yield {1, 2}
        raise AssertionError("nobody asks for more")

    def arrays(self, count):
        for _ in range(count):
            yield numpy.arange(3)

    def stubborn(self):
        try:
            yield 1
        finally:
            yield 2


@pytest.fixture
def scan():
    return Scan()


@pytest.fixture
def served(scan):
    streams = {name: getattr(scan, name) for name in dir(scan) if callable(getattr(scan, name)) and name[0] != "_"}
    made = Served({"echo": lambda value: value}, streams, message_bytes_max=1_000_000, stream_timeout=5.0)
    yield made
    made.answering.close()
    made.answering.desk.load.check()
    assert made.answering.desk.load.calls == 0


def messages_of(caller, kind):
    return [one for one in caller.sent if isinstance(one, kind)]


def test_items_come_in_order_and_the_end_carries_what_the_generator_returned(served, scan):
    """[7.39.1], [8.27]: each ITEMS says how many were sent before it."""
    caller = Asked()
    served.stream(caller, 5, "count", 1000, "the end", credit=5000)
    served.work()
    assert served.items(caller, 5) == list(range(1000))
    assert isinstance(caller.sent[-1], Reply)
    assert value_of(caller.sent[-1]) == "the end"
    assert scan.closed == 1


def test_a_generator_that_yields_nothing_is_only_an_end(served):
    """[8.27]: no ITEMS without an item."""
    caller = Asked()
    served.stream(caller, 5, "count", 0, credit=10)
    served.work()
    assert [value_of(one) for one in caller.sent] == [None]


def test_the_first_item_leaves_at_once_and_the_others_together(served):
    """Its reader has something to do while the next are made; then a message for every item would be too many."""
    caller = Asked()
    served.stream(caller, 5, "count", 200, credit=1000)
    served.work()
    sizes = [len(value_of(one)) for one in messages_of(caller, Items)]
    assert sizes[0] == 1
    assert max(sizes) <= ITEMS_COUNT
    assert len(sizes) < 20


def test_without_credit_the_generator_is_not_advanced(served, scan):
    """[8.27]: a slow reader holds the producer, not memory; not one item is made ahead."""
    caller = Asked()
    served.stream(caller, 5, "count", 100)
    served.work()
    assert (scan.made, caller.sent) == ([], [])
    for total in (1, 1, 7, 3, 20):
        served.credit(caller, 5, total)
        served.work()
        assert len(scan.made) == len(served.items(caller, 5)) == max(total, len(scan.made))
    assert scan.made == list(range(20))
    served.credit(caller, 5, 101)
    served.work()
    assert served.items(caller, 5) == list(range(100))
    assert scan.closed == 1


def test_credit_for_a_call_that_is_none_means_nothing(served):
    """A stream that is over, a plain call, a number that was never given."""
    caller = Asked()
    served.call(caller, 1, "echo", 1)
    for number in (1, 2):
        served.credit(caller, number, 5)
    served.work()
    assert caller.results() == {1: 1}


# ----------------------------------------------------------------------------------------------- ends


def test_an_exception_ends_the_stream_behind_the_items_before_it(served):
    """[8.27]: HANDLER with its traceback."""
    caller = Asked()
    served.stream(caller, 5, "fails", 10, credit=100)
    served.work()
    assert served.items(caller, 5) == list(range(10))
    error = caller.sent[-1]
    assert (error.code, error.remote_type, error.text) == (Code.HANDLER, "ValueError", "enough")
    assert "fails" in error.detail


def test_an_item_that_cannot_be_sent_ends_the_stream(served):
    """Its type is named, and the generator is closed where it stands."""
    caller = Asked()
    served.stream(caller, 5, "unsendable", credit=100)
    served.work()
    assert served.items(caller, 5) == [1]
    assert caller.sent[-1].code == Code.HANDLER
    assert "builtins.set" in caller.sent[-1].text


def test_an_item_over_the_limit_ends_the_stream(served):
    """[8.20] 9: the items before it have arrived."""
    caller = Asked()
    served.stream(caller, 5, "sizes", 10, 20, 1_000_001, 30, credit=100)
    served.work()
    assert [len(item) for item in served.items(caller, 5)] == [10, 20]
    assert caller.sent[-1].code == Code.REPLY_TOO_LARGE


@pytest.mark.parametrize("payload", [b"\xc1", b"\xc0", b"\x91\x90", b"\x92\x80\x90"], ids=repr)
def test_arguments_that_are_none_are_refused(served, payload):
    """[7.38.1], [8.20] 6: as those of a REQUEST."""
    caller = Asked()
    frames = [codec.preamble(Kind.STREAM, bytes(range(8))), b"\x96\x05\xa5count\xcd\xff\xff\x03\x07\x0a", payload]
    assert served.answering.answer(frames, 1e12, caller) is None
    served.work()
    assert [one.code for one in caller.sent] == [Code.INVALID_ARGUMENT]


@pytest.mark.parametrize("credit", [b"", b"\xff", b"\xc0", b"\xcb" + bytes(8)], ids=repr)
def test_a_stream_without_a_number_of_credit_is_malformed(served, credit):
    """[13.2]: silence."""
    fields = (b"\x96" if credit else b"\x95") + b"\x05\xa5count\xcd\xff\xff\x03\x07" + credit
    frames = [codec.preamble(Kind.STREAM, bytes(range(8))), fields, b"\x92\x90\x80"]
    assert served.answering.answer(frames, 1e12, Asked()) is None
    assert not served.answering.busy()


def test_arguments_that_do_not_fit_are_refused(served):
    """[8.20] 7: definite; the generator has not begun."""
    caller = Asked()
    served.stream(caller, 5, "count", credit=10)
    served.work()
    assert caller.sent[0].code == Code.INVALID_ARGUMENT


def test_a_plain_method_is_no_stream_and_the_other_way_round(served):
    """[8.20] 3: the text says what to call."""
    caller = Asked()
    served.stream(caller, 1, "echo", 1, credit=10)
    served.call(caller, 2, "count", 1)
    served.batch(caller, 3, "count", [[1]])
    assert [one.code for one in caller.sent] == [Code.INVALID_ARGUMENT] * 3
    assert ["call()" in caller.sent[0].text, "stream()" in caller.sent[1].text] == [True, True]


# --------------------------------------------------------------------------------------------- taken back


@pytest.mark.parametrize("credit", [0, 3, 1000])
def test_a_stream_that_is_cancelled_closes_its_generator(served, scan, credit):
    """[8.24]: wherever it stands, and nothing more is sent."""
    caller = Asked()
    served.stream(caller, 5, "count", 10**9, credit=credit)
    for _ in range(2):
        served.answering.desk.turn(served.answering._replies, 0.0)
    sent = list(caller.sent)
    served.cancel(caller, 5)
    served.work()
    assert caller.sent == sent
    assert scan.closed == (1 if sent else 0)
    assert served.answering.desk.load.calls == 0


def test_a_reader_that_vanishes_half_way_closes_the_generator(served, scan):
    """[8.22]: its finally blocks run; other streams go on."""
    one, two = Asked(), Asked()
    for caller in (one, two):
        served.stream(caller, 5, "count", 100, credit=10)
    served.work()
    served.answering.gone(one)
    assert scan.closed == 1
    served.credit(two, 5, 200)
    served.work()
    assert served.items(two, 5) == list(range(100))
    assert len(served.items(one, 5)) == 10


def test_a_stream_that_nobody_reads_is_ended(served, scan, monkeypatch):
    """[8.28]: after stream_timeout without credit; one that gets credit in time goes on."""
    now = [1000.0]
    for module in (desk_module, __import__("spark_partition_server.serving.answering", fromlist=["x"])):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    idle, busy = Asked(), Asked()
    for caller in (idle, busy):
        served.stream(caller, 5, "count", 10**6, credit=2)
    served.work()
    for step in range(1, 13):
        now[0] += 1.0
        served.credit(busy, 5, 2 + step)
        served.work()
    error = idle.sent[-1]
    assert isinstance(error, Error)
    assert error.code == Code.CANCELLED
    assert "no credit for 5 s" in error.text
    assert scan.closed == 1
    assert served.items(busy, 5) == list(range(14))
    served.cancel(busy, 5)


def test_a_generator_that_does_not_want_to_end_is_left_to_the_log(served, caplog):
    """It yields where it was told to end: nobody else is to suffer."""
    caller = Asked()
    served.stream(caller, 5, "stubborn", credit=1)
    served.work()
    with caplog.at_level(logging.ERROR):
        served.cancel(caller, 5)
    assert "stubborn" in caplog.text


# ------------------------------------------------------------------------------------------ fairness, sizes


def test_streams_and_calls_take_turns(served, scan):
    """[8.25]: an endless stream does not hold up a call; two of them go on side by side."""
    one, two, other = Asked(), Asked(), Asked()
    for caller in (one, two):
        served.stream(caller, 5, "count", 10**9, credit=10**9)
    served.answering.work()
    served.call(other, 1, "echo", "now")
    for _ in range(4):
        served.answering.desk.turn(served.answering._replies, 0.0)
    assert other.results() == {1: "now"}
    assert served.items(one, 5)
    assert served.items(two, 5)


def test_nothing_is_made_for_a_reader_that_leaves_it_unread(served, scan):
    """Credit is one bound, what waits to be sent the other."""
    caller = Asked()
    served.stream(caller, 5, "count", 10**9, credit=10**9)
    served.answering.desk.turn(served.answering._replies, 0.0)
    caller.stuck = True
    made = len(scan.made)
    served.work()
    assert len(scan.made) == made == 1


def test_large_items_travel_alone(served):
    """A message of many of them would be as long as they are together."""
    caller = Asked()
    served.stream(caller, 5, "sizes", *[30_000] * 7, 200_000, 10, credit=100)
    served.work()
    messages = [sum(map(len, value_of(one))) for one in messages_of(caller, Items)]
    assert sum(messages) == 410_010
    assert sorted(messages)[-2] <= ITEMS_BYTES
    assert 200_000 in messages


def test_more_arrays_than_fit_a_message_go_on_in_the_next(served):
    """[9.8]: 61 in one value."""
    caller = Asked()
    served.stream(caller, 5, "arrays", 150, credit=1000)
    served.work()
    counts = [len(value_of(one)) for one in messages_of(caller, Items)]
    assert sum(counts) == 150
    assert max(counts) <= 61
    assert all(item.tolist() == [0, 1, 2] for item in served.items(caller, 5))
