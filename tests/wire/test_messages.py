"""The messages: each field of each kind at its limits and just outside, against the table in tests/vectors/spec.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from vectors import spec

from spark_partition_server.errors import LocalProtocolError
from spark_partition_server.wire import messages
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.messages import KINDS, Kind, Member

FIELDS = [(kind, field) for kind in spec.KINDS for field in kind.fields]
IDS = [f"{kind.name}.{field.name}" for kind, field in FIELDS]


def made(kind: spec.Kind, **changes: Any) -> messages.Message:
    """A message of that kind with its example's fields, some of them changed."""
    return KINDS[Kind[kind.name]](**{**kind.values("example"), **changes})


# --------------------------------------------------------------------------------------------- the table


def test_the_kinds_have_their_numbers():
    """Numbers are the protocol: a renumbered kind is another message to everybody else."""
    assert {kind.name: kind.value for kind in Kind} == {kind.name: kind.number for kind in spec.KINDS}
    assert set(KINDS) == set(Kind)
    assert all(message.kind is kind for kind, message in KINDS.items())


@pytest.mark.parametrize("kind", spec.KINDS, ids=lambda kind: kind.name)
def test_the_fields_have_their_order_and_their_defaults(kind):
    """Fields are positional: two of them swapped would be read as each other."""
    declared = [field for field in dataclasses.fields(KINDS[Kind[kind.name]]) if field.name != "payload"]
    assert [field.name for field in declared] == [field.name for field in kind.fields]
    for field, wanted in zip(declared, kind.fields, strict=True):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        assert default == (dataclasses.MISSING if wanted.default is spec.REQUIRED else wanted.default), field.name
    assert ("payload" in KINDS[Kind[kind.name]].__slots__) == kind.payload


@pytest.mark.parametrize("kind", spec.KINDS, ids=lambda kind: kind.name)
def test_messages_are_frozen_compared_by_value_and_without_a_dict(kind):
    """A message that a machine has returned cannot be changed behind its back."""
    message = made(kind)
    assert message == made(kind)
    assert not hasattr(message, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, kind.fields[0].name, kind.fields[0].example)


# --------------------------------------------------------------------------------------------- the limits


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=IDS)
def test_a_field_at_its_limits_is_taken(kind, field):
    """One less and the largest legal message could not be sent."""
    assert getattr(made(kind, **{field.name: field.smallest()}), field.name) == field.smallest()
    assert getattr(made(kind, **{field.name: field.largest()}), field.name) == field.largest()


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=IDS)
def test_a_field_outside_its_limits_is_refused_by_name(kind, field):
    """A message that breaks a limit cannot exist, and the error says which field of which message."""
    name = f"{KINDS[Kind[kind.name]].__name__}.{field.name}"
    outside = field.outside()
    if field.type in ("int", "code"):
        outside["over its limit"] = field.most + 1  # also where msgpack could not carry it
    for value in [*outside.values(), *field.mistyped().values()]:
        with pytest.raises(LocalProtocolError, match=rf"^{name}: "):
            made(kind, **{field.name: value})


@pytest.mark.parametrize("field", spec.MEMBER, ids=lambda field: field.name)
def test_a_member_has_the_same_limits(field):
    """An entry of a view is checked like the HELLO that made it."""
    example = {known.name: known.example for known in spec.MEMBER}
    assert dataclasses.asdict(Member(**example)) == example
    for value in (field.smallest(), field.largest()):
        assert getattr(Member(**{**example, field.name: value}), field.name) == value
    for value in [*field.outside().values(), *field.mistyped().values()]:
        with pytest.raises(LocalProtocolError, match=rf"^Member.{field.name}: "):
            Member(**{**example, field.name: value})


@pytest.mark.parametrize("kind", [kind for kind in spec.KINDS if kind.payload], ids=lambda kind: kind.name)
def test_the_payload_is_a_tuple_of_at_most_62_frames(kind):
    """With preamble and fields that makes the 64 frames that a connection accepts."""
    assert len(made(kind, payload=(b"",) * 62).payload) == 62
    assert made(kind, payload=(b"a", bytearray(b"b"), memoryview(b"c"))).payload[1] == b"b"
    for payload in ((b"",) * 63, [b""], b"", None):
        with pytest.raises(LocalProtocolError, match="payload"):
            made(kind, payload=payload)


# ---------------------------------------------------------------------------------------------- the codes


def test_every_code_can_be_sent_as_a_number_and_as_a_code():
    """The machines say ``Code.STALE``, the decoder says 9."""
    for code in Code:
        assert messages.Refuse(code) == messages.Refuse(int(code))


@pytest.mark.parametrize("number", [999, 1000, 1001, 2**32 - 1])
def test_codes_of_later_versions_and_of_applications_are_passed_on(number):
    """A newer server's code must not be malformed to an older client; it means UNEXPECTED to it."""
    assert messages.Error(1, number).code == number
    assert Code.of(number) is Code.UNEXPECTED


def test_every_code_says_what_it_promises():
    """A code without a meaning could be retried by nobody, or by everybody."""
    assert set(CODES) == set(Code)
    assert all(meaning.sentence.endswith(".") for meaning in CODES.values())
    assert [Code.of(code.value) for code in Code] == list(Code)


def test_only_definite_errors_may_be_retried_by_the_library():
    """A retry after an error that does not exclude that the method ran would run it twice. LOST is for methods that
    may run twice."""
    assert all(meaning.definite for code, meaning in CODES.items() if meaning.retry and code is not Code.LOST)
    indefinite = {code for code, meaning in CODES.items() if not meaning.definite}
    assert indefinite == {Code.HANDLER, Code.CANCELLED, Code.REPLY_TOO_LARGE, Code.LOST}
