"""``QueryServer``: which methods are served, what goes in and out, and that no call ends the server for the others."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from spark_partition_server import Client, QueryServer, ServerOptions, method
from spark_partition_server.errors import (
    HandlerError,
    InvalidArguments,
    MessageTooLarge,
    MethodNotFound,
    PartitionInitError,
    PortUnavailable,
)
from spark_partition_server.query_server import idempotent_methods
from spark_partition_server.testing import LocalCluster, local_cluster
from spark_partition_server.utils import get_open_port

LONG = 20.0


# --------------------------------------------------------------------------------------- what is served


class Base(QueryServer):
    @method
    def plain(self) -> str:
        return "base"

    @method(idempotent=True)
    def safe(self) -> str:
        return "base"

    @method
    def taken_back(self) -> str:
        return "base"

    @staticmethod
    @method
    def static(value: int) -> int:
        return value + 1

    @classmethod
    @method
    def class_name(cls) -> str:
        return cls.__name__

    def hidden(self) -> str:
        return "hidden"


class Derived(Base):
    @method
    def safe(self) -> str:
        return "derived"

    def taken_back(self) -> str:
        return "derived"

    @method()
    def more(self) -> str:
        return self.hidden()


def test_methods_are_inherited_and_overridden():
    """What a subclass defines counts: with the mark it is served, without it it is not."""
    with local_cluster(Derived(), [[]]) as cluster:
        client = cluster.client(LONG)
        assert client.call(0, "plain") == "base"
        assert client.call(0, "safe") == "derived"
        assert client.call(0, "more") == "hidden"
        assert client.call(0, "static", 1) == 2
        assert client.call(0, "class_name") == "Derived"
        for name in ("hidden", "taken_back"):
            with pytest.raises(MethodNotFound, match="there are: class_name, more, plain, safe, static"):
                client.call(0, name)


def test_a_mark_around_a_static_method_is_not_lost():
    """The other order of the two decorators: it serves the method too, or says at once that it does not."""
    with contextlib.suppress(TypeError):

        class Around(QueryServer):
            @method(idempotent=True)
            @staticmethod
            def static() -> None: ...

        assert idempotent_methods(Around()) == ["static"]


def test_idempotent_methods_are_those_that_say_so():
    """An override says so again, or is none; clients are told their names."""
    assert idempotent_methods(Base()) == ["safe"]
    assert idempotent_methods(Derived()) == []
    with local_cluster(Base(), [[]]) as cluster:
        client = cluster.client(LONG)
        client.refresh()
        assert client._routes.calls.idempotent == {"safe"}


def test_a_mark_leaves_the_method_as_it_was():
    """It can be called, documented and tested without a cluster."""
    assert Base().plain() == "base"
    assert Base.static(1) == 2
    assert Derived().more() == "hidden"


def test_a_parameter_called_timeout_is_refused_where_it_is_written():
    """``call(..., timeout=)`` takes that name; the error names the method, when the class is made."""
    with pytest.raises(TypeError, match=r"get: 'timeout' is reserved for the caller; rename the parameter"):

        @method
        def get(self: Any, key: str, timeout: float = 1.0) -> None: ...

    with pytest.raises(TypeError, match="'timeout' is reserved"):

        @method(idempotent=True)
        def get_too(self: Any, *, timeout: float) -> None: ...


# ------------------------------------------------------------------------------------ partitions


class Rows(QueryServer):
    def init_partition(self, rows: Any) -> None:
        self.rows = list(rows)

    @method
    def all(self) -> list[Any]:
        return self.rows


class Lazy(QueryServer):
    """Overrides nothing but a method."""

    @method
    def rank(self) -> int:
        return self.partition_ind


def test_each_server_gets_the_rows_of_its_partition():
    """Empty partitions are partitions too."""
    with local_cluster(Rows(), [[1, 2], [], [(3, "x")]]) as cluster:
        assert cluster.client(LONG).call_all("all") == [[1, 2], [], [[3, "x"]]]


def test_a_server_need_not_look_at_its_rows():
    """The default ``init_partition`` takes none."""

    def rows() -> Iterator[int]:
        raise AssertionError("nobody asked for the rows")
        yield 1

    with local_cluster(Lazy(), [rows()]) as cluster:
        assert cluster.client(LONG).call(0, "rank") == 0


# ---------------------------------------------------------------------------------- values in and out


class Odd(Exception):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        return str(self.nothing)  # type: ignore[attr-defined]


class Quiet(Exception):
    pass


RAISED: dict[str, Any] = {
    "ValueError": ValueError("a value"),
    "KeyError": KeyError("a key"),
    "SystemExit": SystemExit(3),
    "StopIteration": StopIteration(1),
    "GeneratorExit": GeneratorExit("closed"),
    "CancelledError": asyncio.CancelledError("cancelled"),
    "MemoryError": MemoryError(),
    "Quiet": Quiet(),
    "Odd": Odd(),
    "OSError": OSError(5, "\udcff is no text", "/tmp/\udc80"),
    "UnicodeEncodeError": UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"),
    "long": ValueError("x" * 1_000_000),
    "wide": ValueError("\N{SNOWMAN}" * 1_000_000),
}
RETURNED: dict[str, tuple[Any, str]] = {
    "object": (object(), r"value is of type builtins.object"),
    "set": ({1}, r"value is of type builtins.set"),
    "deep": ({"a": [1, {"b": {2}}]}, r"value\['a'\]\[1\]\['b'\] is of type builtins.set"),
    "big": ([1 << 70], r"value\[0\] is an int of 71 bits"),
    "naive": (datetime.datetime(2020, 1, 1), "without a time zone"),
    "surrogate": ("\udcff", "cannot be sent"),
    "objects": (numpy.array([object()]), "dtype"),
    "generator": (iter([1]), "list_iterator"),
}


class Values(QueryServer):
    @method
    def give_back(self, value: Any) -> Any:
        return value

    @method
    def double(self, array: Any, *, times: int = 2) -> Any:
        return array * times

    @method
    def change(self, array: Any) -> Any:
        array += 1
        return array

    @method
    def large(self, size: int) -> bytes:
        return bytes(size)

    @method
    def fail(self, name: str) -> None:
        raise RAISED[name]

    @method
    def answer(self, name: str) -> Any:
        return RETURNED[name][0]

    @method
    def recurse(self) -> None:
        self.recurse()

    @method
    def itself(self) -> Any:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    @method
    def call_wrongly(self) -> Any:
        return math.sqrt("x")  # type: ignore[arg-type]

    @method
    def call_itself_wrongly(self) -> Any:
        return self.give_back()  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def started() -> Iterator[LocalCluster]:
    """One cluster for all the tests below: whatever they do to it, it must go on."""
    with local_cluster(Values(options=ServerOptions(message_bytes_max=1_000_000)), [[], []]) as made:
        made.client(LONG).call_all("give_back", 0)  # everything that a server opens is open
        yield made


@pytest.fixture
def values(started: LocalCluster) -> Iterator[Client]:
    """A client; afterwards the server still answers, on the same connection and on a new one."""
    with started.client(LONG) as client, started.client(LONG) as other:
        client.call(0, "give_back", 0)
        yield client
        assert client.call(0, "give_back", "still there") == "still there"
        assert other.call(0, "give_back", "still there") == "still there"
    started._clients.clear()


@pytest.mark.parametrize("value", [
    None, True, 0, -1, (1 << 64) - 1, -(1 << 63), 0.1, float("inf"), "", "\u2603", b"", b"\xff", [], [1, [2]], {},
    {"a": 1}, {1: 2}, {b"x": None}, {None: 1}, "x" * 100_000,
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
], ids=lambda value: repr(value)[:20])  # fmt: skip
def test_plain_values_come_back_as_they_were(values, value):
    """Both ways through the codec."""
    back = values.call(0, "give_back", value)
    assert back == value
    assert type(back) is type(value)


def test_a_tuple_comes_back_as_a_list(values):
    """msgpack knows no tuples; but a tuple may be a key."""
    assert values.call(0, "give_back", (1, (2,))) == [1, [2]]
    assert values.call(0, "give_back", {(1, 2): 3}) == {(1, 2): 3}


@pytest.mark.parametrize("array", [
    numpy.arange(6), numpy.zeros((0, 3)), numpy.float32(1.5), numpy.arange(24.0).reshape(2, 3, 4)[:, ::-1, 1:],
    numpy.asfortranarray(numpy.arange(6).reshape(2, 3)), numpy.array(5), numpy.array(["a", "bc"]),
    numpy.array(["2020-01-01"], dtype="M8[D]"), numpy.arange(3, dtype=">i4"), numpy.array([True, False]),
    numpy.arange(50_000.0),
], ids=repr)  # fmt: skip
def test_arrays_come_back_as_they_were(values, array):
    """Type, shape, order and numbers; views, Fortran order, scalars, empty ones, foreign byte order."""
    back = values.call(0, "give_back", array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    numpy.testing.assert_array_equal(back, array)


def test_arrays_are_arguments_among_others(values):
    """By position and within other values; what arrives can be written to by the method that gets it."""
    assert values.call(0, "double", numpy.arange(3), times=3).tolist() == [0, 3, 6]
    back = values.call(0, "give_back", {"x": [numpy.arange(3), 1], "y": numpy.arange(2)})
    assert [back["x"][0].tolist(), back["x"][1], back["y"].tolist()] == [[0, 1, 2], 1, [0, 1]]
    large = numpy.zeros(20_000)
    assert values.call(0, "change", large)[:3].tolist() == [1, 1, 1]
    assert large[0] == 0


# ------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_method_raises_is_its_callers_error(values, name):
    """Exceptions that would end the thread, that cannot be printed, that are a megabyte long."""
    with pytest.raises(HandlerError) as caught:
        values.call(0, "fail", name)
    error = caught.value
    assert error.remote_type == type(RAISED[name]).__name__
    assert "fail" in error.remote_traceback
    assert not error.definite
    assert len(str(error)) < 100_000


def test_a_recursion_without_end_is_its_callers_error(values):
    """In the method, and in the value it returns."""
    with pytest.raises(HandlerError, match="RecursionError"):
        values.call(0, "recurse")
    with pytest.raises(HandlerError, match="nested too deeply, or refers to itself"):
        values.call(0, "itself")


@pytest.mark.parametrize("name", RETURNED)
def test_a_result_that_cannot_be_sent_names_its_path_and_type(values, name):
    """The method has run; the caller learns what its author has to change."""
    with pytest.raises(HandlerError, match=RETURNED[name][1]) as caught:
        values.call(0, "answer", name)
    assert caught.value.remote_type == "TypeError"


def test_a_type_error_inside_the_method_is_not_taken_for_wrong_arguments(values):
    """Only what does not fit the signature is the caller's fault and certainly did not run."""
    for name in ("call_wrongly", "call_itself_wrongly"):
        with pytest.raises(HandlerError, match="TypeError") as caught:
            values.call(0, name)
        assert not caught.value.definite
    with pytest.raises(InvalidArguments) as refused:
        values.call(0, "give_back")
    assert refused.value.definite


def test_a_reply_that_is_too_large_is_an_error_and_the_server_serves_on(values):
    """A hundred of them."""
    for _ in range(100):
        with pytest.raises(MessageTooLarge, match="limit is 1000000"):
            values.call(0, "large", 1_000_001)


def test_a_port_can_be_asked_for():
    """And the second server that asks for it on the same host is told that it is taken."""
    port = get_open_port()
    text = f"no free port on 127.0.0.1 in {port}..{port}"
    with local_cluster(Lazy(port=port), [[]]) as cluster:
        assert cluster.coordinator.hosts[0] == ("127.0.0.1", port)
        second = local_cluster(Lazy(options=ServerOptions(ports=(port, port))), [[]])
        with pytest.raises((PartitionInitError, PortUnavailable), match=text), second:
            pass
