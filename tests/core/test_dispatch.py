"""A server's rules: which requests it admits, and how an exception becomes an ERROR."""

from __future__ import annotations

import pytest

from spark_partition_server.core.dispatch import Dispatch, handler_error, shorten
from spark_partition_server.wire import codec
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.messages import Error


def get():
    """The one handler; it is never run here."""


def dispatch(**handlers):
    return Dispatch(3, 7, handlers or {"get": get})


def request(method="get", remaining_ms=1000, rank=3, incarnation=7):
    return 5, method, remaining_ms, rank, incarnation


def test_a_request_for_this_incarnation_gets_its_handler():
    """[8.20] 9: nothing stands between a good request and its method."""
    assert dispatch().admit(request(), 1.0, 1.0) is get


@pytest.mark.parametrize(("rank", "incarnation"), [(3, 6), (3, 8), (2, 7), (0, 0), (-1, 7), (1 << 40, 7), (3, 1 << 64)])
def test_a_request_for_another_is_refused_before_anything_else(rank, incarnation):
    """[8.20] 1 and [7.32.1]: a port that was given on must not answer for the server that had it before."""
    rules = dispatch()
    rules.leaving = True
    text = f"this is incarnation 7 of partition 3, not incarnation {incarnation} of partition {rank}"
    answer = rules.admit(request("none", 0, rank, incarnation), 1.0, 9.0)
    assert answer == Error(5, Code.WRONG_MEMBER, text)


def test_a_server_that_is_leaving_takes_nothing_new():
    """[8.20] 2 and [8.4]: the caller looks for the next one, instead of being cut off in the middle."""
    rules = dispatch()
    rules.leaving = True
    assert rules.admit(request("none", 0), 1.0, 9.0) == Error(5, Code.UNAVAILABLE, "partition 3 is shutting down")


def test_a_method_that_is_not_there_is_named_with_those_that_are():
    """[8.20] 3: the reader of the error sees the typing mistake at once."""
    rules = dispatch(put=get, count=get)
    text = "no such method; there are: count, put (those marked @method)"
    assert rules.admit(request("cuont", 0), 1.0, 9.0) == Error(5, Code.UNIMPLEMENTED, text)


def test_a_server_without_methods_says_so():
    """"there are: " and nothing would look like a fault of the message."""
    assert Dispatch(3, 7, {}).admit(request(), 1.0, 1.0) == Error(
        5, Code.UNIMPLEMENTED, "no such method; there are: none (those marked @method)"
    )


def test_a_server_with_thousands_of_methods_can_still_refuse():
    """The list must fit the field; an ERROR that cannot be built would leave the caller without an answer."""
    rules = dispatch(**{f"method_{number}": get for number in range(1000)})
    answer = rules.admit(request("none"), 1.0, 1.0)
    assert answer.code == Code.UNIMPLEMENTED
    assert len(answer.text) == 4096
    assert codec.encode(answer, bytes(8))


@pytest.mark.parametrize(
    ("now", "taken"), [(12.0, True), (12.05, True), (12.0999, True), (12.1001, False), (60.0, False)]
)
def test_a_request_that_waited_too_long_is_not_run(now, taken):
    """[8.20] 4: its caller has given up; running it would only hold up those who have not."""
    answer = dispatch().admit(request(remaining_ms=100), 12.0, now)
    if taken:
        assert answer is get
    else:
        waited = round((now - 12.0) * 1000)
        assert answer == Error(5, Code.TIMEOUT, f"it waited {waited} ms, 100 ms were allowed; not run")


def test_a_request_with_no_time_at_all_is_run_if_it_did_not_wait():
    """The limit is on waiting here; how long the way took only the caller knows."""
    assert dispatch().admit(request(remaining_ms=0), 12.0, 12.0) is get


def test_every_refusal_is_definite():
    """[8.21]: the client repeats a definite error by itself, so none of these may follow a run."""
    rules = dispatch()
    answers = [rules.admit(request(rank=0), 1.0, 1.0), rules.admit(request("none"), 1.0, 1.0)]
    answers.append(rules.admit(request(remaining_ms=0), 1.0, 2.0))
    rules.leaving = True
    answers.append(rules.admit(request(), 1.0, 1.0))
    assert [CODES[Code(answer.code)].definite for answer in answers] == [True] * 4


def test_the_handlers_are_a_copy():
    """A dict that its owner goes on changing must not add methods to a running server."""
    given = {"get": get}
    rules = Dispatch(3, 7, given)
    given["put"] = get
    assert set(rules.handlers) == {"get"}


# ------------------------------------------------------------------------------------------- exceptions


def test_an_exception_becomes_its_name_its_text_and_its_traceback():
    """[7.34.1]: what the caller sees of a failure on another machine."""
    assert handler_error(5, "KeyError", "'alice'", "Traceback ...") == Error(
        5, Code.HANDLER, "'alice'", "KeyError", "Traceback ..."
    )


def test_whatever_an_exception_says_can_be_sent():
    """[7.34.1]: an exception with a text of megabytes, or with half a surrogate pair, still answers its call."""
    error = handler_error(5, "E" * 9999, "m" * 99_999 + "\udcff", "first\n" + "t\udcff" * 99_999 + "\nlast")
    assert codec.decode(codec.encode(error, bytes(8)), bytes(8)) == error
    assert (len(error.remote_type), len(error.text), len(error.detail)) == (256, 4096, 16384)
    assert error.detail.startswith("first\n")
    assert error.detail.endswith("\nlast")


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        ("", ""),
        ("0123456789", "0123456789"),
        ("0123456789a", "0 [...] 9a"),
        ("a" * 500 + "z", "a [...] az"),
        ("\ud800", "?"),
        ("\ud800" * 11, "? [...] ??"),
    ],
)
def test_a_text_that_is_too_long_keeps_its_beginning_and_its_end(text, shortened):
    """[7.34.1]: the end of a traceback says what, its beginning says where; lone surrogates cannot be sent."""
    assert shorten(text, 10) == shortened
    assert len(shorten(text, 10)) <= 10


def test_the_end_of_a_long_text_gets_twice_the_room_of_its_beginning():
    """[7.34.1]: the last lines of a traceback are the ones that are read."""
    assert shorten("b" * 500 + "e" * 500, 37) == "b" * 10 + " [...] " + "e" * 20


# --------------------------------------------------------------------------------------------- streams


def test_a_method_that_yields_items_is_asked_for_as_a_stream():
    """[8.20] 3: the text says what to call instead, either way."""
    rules = Dispatch(3, 7, {"get": get}, {"scan": test_a_server_without_methods_says_so})
    assert rules.admit(request("scan"), 1.0, 1.0, stream=True) is test_a_server_without_methods_says_so
    text = "scan yields a stream of items: call it with stream()"
    assert rules.admit(request("scan"), 1.0, 1.0) == Error(5, Code.INVALID_ARGUMENT, text)
    text = "get returns one value and no stream: call it with call()"
    assert rules.admit(request("get"), 1.0, 1.0, stream=True) == Error(5, Code.INVALID_ARGUMENT, text)


def test_reserved_methods_are_not_listed():
    """[8.26]: they are the library's."""
    rules = Dispatch(3, 7, {"get": get, "sps.status": get}, {"scan": get})
    text = "no such method; there are: get, scan (those marked @method)"
    assert rules.admit(request("none"), 1.0, 1.0) == Error(5, Code.UNIMPLEMENTED, text)
    assert rules.admit(request("sps.status"), 1.0, 1.0) is get
