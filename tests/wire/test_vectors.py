"""The checked-in vectors, replayed: what the octets of the protocol mean does not change between two releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.engines import feed, feed_rooms
from support.octets import GREETING, handshake
from support.values import same
from vectors import generate, spec
from vectors.notation import octets_from, octets_to, value_from, value_to

from spark_partition_server.errors import RemoteProtocolError
from spark_partition_server.wire import codec, messages, zmtp
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.payload import decode_value, encode_value

FILE = Path(__file__).parent.parent / "vectors" / "frames.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
RUN_ID = bytes.fromhex(VECTORS["run_id"])
GROUPS: dict[str, list[dict[str, Any]]] = {group["kind"]: group["cases"] for group in VECTORS["groups"]}
ZMTP_LIMITS = next(group["limits"] for group in VECTORS["groups"] if group["kind"] == "zmtp")
VALUES = [*GROUPS["value"], *GROUPS["value with arrays"]]
MEMBERS = GROUPS["members"]
ZMTP = GROUPS["zmtp"]
MESSAGES = [
    {"of": kind, **case}
    for kind, cases in GROUPS.items()
    if kind in messages.Kind.__members__ or kind == "preamble"
    for case in cases
]

# Where the code is known to differ from the vectors; an entry goes when its defect does.
def each(cases: list[dict[str, Any]], *results: str) -> list[Any]:
    """The cases with one of these results, as pytest's parameters."""

    return [pytest.param(case, id=case["id"]) for case in cases if case["result"] in results]


def frames_of(case: dict[str, Any]) -> list[bytes]:
    return [octets_from(frame) for frame in case["frames"]]


# --------------------------------------------------------------------------------------------- the file


def test_generating_the_vectors_again_changes_nothing():
    """A changed vector is a changed protocol: it must show in the file, not happen behind it."""
    assert generate.text() == FILE.read_text(encoding="utf-8")


def test_the_file_says_what_is_in_it():
    """Ids are for ever, so none may name two cases; other languages load the file whole, so it stays small."""
    cases = [case for cases in GROUPS.values() for case in cases]
    assert len({case["id"] for case in cases}) == len(cases) == VECTORS["count"]
    assert {case["result"] for case in cases} == {"valid", "acceptable", "invalid"}
    assert set(GROUPS) >= set(messages.Kind.__members__)
    assert FILE.stat().st_size < 500_000


def test_the_codes_of_the_vectors_are_the_codes_of_the_library():
    """Numbers are append-only; a renumbered code would tell old clients to retry what must not be retried."""
    assert VECTORS["codes"] == {code.name: code.value for code in Code}


def test_every_kind_has_every_result():
    """Each kind of message is in the vectors as it is, as it may be, and as it must not be."""
    for kind in messages.Kind.__members__:
        assert {case["result"] for case in GROUPS[kind]} == {"valid", "acceptable", "invalid"}, kind


@pytest.mark.parametrize("octets", [b"", b"a", bytes(23), bytes(24), b"ab" * 40, bytes(99) + b"x" + b"\xff" * 50])
def test_the_notation_of_octets_loses_nothing(octets):
    """The helper under all of this, both ways."""
    assert octets_from(json.loads(json.dumps(octets_to(octets)))) == octets


# --------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("case", each(MESSAGES, "valid", "acceptable"))
def test_good_frames_decode_to_their_message(case):
    """Every field has the value and the type that the vector names."""
    message = codec.decode(frames_of(case), RUN_ID)
    assert message.kind.name == case["of"]
    wanted = {name: value_from(noted) for name, noted in case["message"].items() if name != "payload"}
    found = {name: getattr(message, name) for name in wanted}
    assert same(found, wanted)
    payload = [octets_from(frame) for frame in case["message"].get("payload", ())]
    assert list(getattr(message, "payload", ())) == payload


@pytest.mark.parametrize("case", each(MESSAGES, "valid", "acceptable"))
def test_messages_encode_to_their_one_canonical_form(case):
    """``valid`` frames are reproduced to the bit; ``acceptable`` ones are never produced."""
    values = {name: value_from(noted) for name, noted in case["message"].items() if name != "payload"}
    if "payload" in case["message"]:
        values["payload"] = tuple(octets_from(frame) for frame in case["message"]["payload"])
    message = messages.KINDS[messages.Kind[case["of"]]](**values)
    assert (codec.encode(message, RUN_ID) == frames_of(case)) == (case["result"] == "valid")


@pytest.mark.parametrize("case", each(MESSAGES, "invalid"))
def test_bad_frames_are_refused_with_the_named_code(case):
    """The code decides what the sender is told, and whether it may try again."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(frames_of(case), RUN_ID)
    assert Code(caught.value.code).name == case["error"]


@pytest.mark.parametrize("case", each(MEMBERS, "valid", "acceptable"))
def test_good_members_of_a_view_are_read(case):
    """A client that misreads the members calls the wrong server."""
    view = messages.View(1, case["size"], {}, tuple(frames_of(case)))
    wanted = tuple(messages.Member(*map(value_from, member)) for member in case["members"])
    assert codec.members_of(view) == wanted
    assert (codec.view_of(1, case["size"], wanted, {}) == view) == (case["result"] == "valid")


@pytest.mark.parametrize("case", each(MEMBERS, "invalid"))
def test_bad_members_of_a_view_are_refused(case):
    """Half a view is worse than the one before it."""
    view = messages.View(1, case["size"], {}, tuple(frames_of(case)))
    with pytest.raises(RemoteProtocolError) as caught:
        codec.members_of(view)
    assert Code(caught.value.code).name == case["error"]


# ----------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("case", each(VALUES, "valid", "acceptable"))
def test_good_frames_decode_to_their_value(case):
    """To the last bit and to the type."""
    assert same(decode_value(frames_of(case)), value_from(case["value"]))


@pytest.mark.parametrize("case", each(VALUES, "valid", "acceptable"))
def test_values_encode_to_their_one_canonical_form(case):
    """Two releases that encode one value differently could not compare what they cache."""
    found = [bytes(frame) for frame in encode_value(value_from(case["value"]))]
    assert (found == frames_of(case)) == (case["result"] == "valid")


@pytest.mark.parametrize("case", each(VALUES, "invalid"))
def test_bad_values_are_refused(case):
    """Never a value that was not sent, never an exception of msgpack or numpy."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_value(frames_of(case))
    assert Code(caught.value.code).name == case["error"]


@pytest.mark.parametrize("case", each(VALUES, "valid"))
def test_the_notation_of_values_loses_nothing(case):
    """A vector that forgets the sign of a zero would prove less than it says."""
    value = value_from(case["value"])
    assert value_to(value) == case["value"]


# -------------------------------------------------------------------------------------- the direct lane


def receiver(case: dict[str, Any]) -> zmtp.Engine:
    limits = zmtp.Limits(ZMTP_LIMITS["octets"], ZMTP_LIMITS["frames"])
    made = zmtp.Engine(case["role"].encode(), limits)
    made.output()
    return made


def pieces(octets: bytes, size: int) -> list[bytes]:
    return [octets[at : at + size] for at in range(0, len(octets), size)] or [b""]


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("feeder", [feed, feed_rooms])
@pytest.mark.parametrize("case", each([case for case in ZMTP if case["in"]], "valid", "acceptable"))
def test_good_octets_become_their_messages(case, feeder, size):
    """Whole or in pieces."""
    made = receiver(case)
    wanted = [[octets_from(part) for part in frames] for frames in case["messages"]]
    assert feeder(made, pieces(octets_from(case["in"]), size)) == wanted
    assert made.output() == octets_from(case.get("out", ""))


@pytest.mark.parametrize("case", each([case for case in ZMTP if not case["in"]], "acceptable"))
def test_no_octets_become_no_messages(case):
    """An empty piece is no piece."""
    assert feed(receiver(case), [octets_from(case["in"])]) == []


@pytest.mark.parametrize("case", each(ZMTP, "valid"))
def test_what_we_send_is_what_the_vectors_say(case):
    """Greeting, handshake and messages, to the octet."""
    sender = {"ROUTER": b"DEALER", "DEALER": b"ROUTER"}[case["role"]]
    assert zmtp.Engine(sender, zmtp.Limits(1, 1)).output() == handshake(sender)
    frames = [[octets_from(part) for part in frames] for frames in case["messages"]]
    for encode in (zmtp.encode, lambda message: b"".join(zmtp.encode_vector(message))):
        assert handshake(sender) + b"".join(map(encode, frames)) == octets_from(case["in"])


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("case", each(ZMTP, "invalid"))
def test_bad_octets_end_the_connection(case, size):
    """With the named code, and after the answer that the vector names."""
    made = receiver(case)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(made, pieces(octets_from(case["in"]), size))
    assert caught.value.code == (Code[case["error"]] if case["error"] else 0)
    assert made.output() == octets_from(case["out"])


# ------------------------------------------------------------------------------------------- the limits


def test_the_vectors_and_the_code_were_written_from_the_same_limits():
    """Written down twice on purpose; here the two meet."""
    assert len(GREETING) == 64
    assert spec.FIELDS_OCTETS == messages.FIELDS_BYTES_MAX
    assert spec.FRAMES == messages.FRAMES_MAX
    assert spec.RUN_ID == RUN_ID
