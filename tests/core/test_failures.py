"""What a refusal or an error means to a caller: class, text, code, and whether it certainly did not happen."""

from __future__ import annotations

import pytest

from spark_partition_server import errors
from spark_partition_server.core.failures import call_error, init_failure, refusal
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.messages import Error, Goodbye, Refuse

ENDPOINT = "tcp://10.0.0.5:4000"

CLASSES = {
    Code.TIMEOUT: errors.CallTimeout,
    Code.WRONG_MEMBER: errors.Unavailable,
    Code.UNAVAILABLE: errors.Unavailable,
    Code.UNIMPLEMENTED: errors.MethodNotFound,
    Code.INVALID_ARGUMENT: errors.InvalidArguments,
    Code.OVERLOADED: errors.Overloaded,
    Code.TOO_LARGE: errors.MessageTooLarge,
    Code.REPLY_TOO_LARGE: errors.MessageTooLarge,
    Code.HANDLER: errors.HandlerError,
    Code.LOST: errors.CallOutcomeUnknown,
}


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_an_error_becomes_the_exception_of_its_code(code):
    """Callers catch classes and look at ``definite``; a wrong one is a call that is repeated and must not be."""
    found = call_error(Error(5, code, "text"), 3, "get", ENDPOINT)
    assert type(found) is CLASSES.get(code, errors.CallError)
    assert (found.rank, found.method, found.endpoint, found.code) == (3, "get", ENDPOINT, code)
    assert found.definite is (CODES[code].definite and code is not Code.UNEXPECTED)
    assert "text" in str(found)
    assert ENDPOINT in str(found)


@pytest.mark.parametrize("number", [1000, 4711, (1 << 32) - 1])
def test_a_code_of_an_application_is_not_definite(number):
    """[11.1]: the library cannot know what it means, so it must not repeat the call."""
    found = call_error(Error(5, number, "text"), 3, "get", ENDPOINT)
    assert type(found) is errors.CallError
    assert found.code == number
    assert found.definite is False


def test_what_a_method_raised_arrives_with_its_traceback():
    """[7.34.1]: the traceback is text and never code."""
    error = Error(5, Code.HANDLER, "'alice'", "KeyError", "Traceback: line 7\n")
    found = call_error(error, 3, "get", ENDPOINT)
    assert (found.remote_type, found.remote_message, found.remote_traceback) == (
        "KeyError",
        "'alice'",
        "Traceback: line 7\n",
    )
    assert str(found) == f"partition 3 at {ENDPOINT}, method 'get': raised KeyError: 'alice'\n\nTraceback: line 7"
    assert found.definite is False


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (Code.CLOSED, errors.ClusterClosed, f"the cluster at {ENDPOINT} is over: because"),
        (
            Code.WRONG_RUN,
            errors.ClusterClosed,
            f"{ENDPOINT} belongs to another run of a cluster by now; connect with its new file",
        ),
        (Code.JOB_FAILED, errors.JobFailed, "because"),
        (Code.BAD_TOKEN, errors.AuthenticationError, f"{ENDPOINT} refused our credentials: because"),
        (Code.UNKNOWN_KIND, errors.RemoteProtocolError, f"{ENDPOINT} refused a message (UNKNOWN_KIND): because"),
        (Code.UNEXPECTED, errors.RemoteProtocolError, f"{ENDPOINT} refused a message (UNEXPECTED): because"),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "",
)
def test_a_refusal_says_what_became_of_the_cluster(code, kind, text):
    """A client of a stopped cluster must not be told that the network is at fault."""
    found = refusal(Refuse(code, "because"), ENDPOINT)
    assert type(found) is kind
    assert str(found) == text


def test_a_refusal_of_another_version_names_both():
    """Which side is to be upgraded must be seen from the text."""
    found = refusal(Refuse(Code.VERSION, "protocol version 1 is not 2"), ENDPOINT)
    assert type(found) is errors.VersionMismatch
    assert found.local == 1
    assert "protocol version 1 is not 2" in str(found)


def test_a_refusal_keeps_its_code():
    """A caller that looks at the code, not at the text, sees why."""
    assert refusal(Refuse(Code.MALFORMED, ""), ENDPOINT).code is Code.MALFORMED
    assert refusal(Refuse(4711, ""), ENDPOINT).code is Code.UNEXPECTED


def goodbye(rank, code=Code.INIT_FAILED, attempt=0):
    return Goodbye(rank, 7, attempt, b"", code, "why", "Traceback", "10.0.0.5")


def test_a_partition_may_fail_to_start_once_and_not_for_ever():
    """The error is of the one that failed too often, not of those that Spark is starting again."""
    assert init_failure([], 1, None) is None
    assert init_failure([goodbye(0), goodbye(1)], 2, None) is None
    found = init_failure([goodbye(0), goodbye(1), goodbye(1, attempt=1)], 2, None)
    assert isinstance(found, errors.PartitionInitError)
    assert (found.rank, found.attempt, found.host, found.text) == (1, 0, "10.0.0.5", "why")
    assert found.remote_traceback == "Traceback"
    assert init_failure([goodbye(0)], 1, None).rank == 0


@pytest.mark.parametrize(("ports", "shown"), [((7200, 7299), (7200, 7299)), (None, (0, 0))])
def test_a_server_without_a_port_is_an_error_of_the_ports(ports, shown):
    """What has to be changed is the range, not init_partition."""
    found = init_failure([goodbye(3, Code.PORT_UNAVAILABLE)], 1, ports)
    assert isinstance(found, errors.PortUnavailable)
    assert (found.host, found.ports, found.reason) == ("10.0.0.5", shown, "why")
