"""wire/PROTOCOL.md says what the code does: its tables are the code's, its rules are proved, its octets are real."""

from __future__ import annotations

import re
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from types import ModuleType

import msgpack
import pytest
from support import transcript
from support.document import PROTOCOL, demanding, quoted, rules, section, table

from spark_partition_server import options, partition_server
from spark_partition_server.calling import routes
from spark_partition_server.core import calls, ledger, membership, relaying, session, windows
from spark_partition_server.core.session import FINAL_REFUSALS, TRANSITIONS, Event, SessionState
from spark_partition_server.net import control, door, listener
from spark_partition_server.wire import arrays, codec, exact, lending, messages, payload, peering, relays, zmtp
from spark_partition_server.wire.codes import CODES, Code
from spark_partition_server.wire.exact_kinds import ExactKind
from spark_partition_server.wire.messages import KINDS, Kind, Member

DOCUMENT = PROTOCOL.read_text(encoding="utf-8")
WIRE = (messages, codec, payload, arrays, exact, zmtp, lending, peering, relays)


def number(text: str) -> int:
    """``2^64-1`` and ``1048575`` as numbers."""
    power, _, less = text.partition("-")
    base, _, exponent = power.partition("^")
    return int(base) ** int(exponent or 1) - int(less or 0)


# ------------------------------------------------------------------------------------------- the messages


def test_the_table_of_messages_is_the_table_of_the_code():
    """A kind that is missing here is one that a stranger's server cannot take."""
    rows = table(section(DOCUMENT, "7. Messages"), "number")
    assert [(int(row["number"]), row["name"]) for row in rows] == [(kind.value, kind.name) for kind in Kind]
    for row in rows:
        carries = any(spec.name == "payload" for spec in dataclass_fields(KINDS[Kind(int(row["number"]))]))
        assert (row["payload"] != "none") == carries, row["name"]


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_the_fields_of_a_message_are_those_of_the_code(kind):
    """Order, types, limits, defaults: fields have no names on the wire, so one in the wrong place is another field."""
    text = section(DOCUMENT, f"7.{kind.value} {kind.name}")
    specs = [spec for spec in dataclass_fields(KINDS[kind]) if spec.name != "payload"]
    rows = table(text, "field")
    assert [row["field"] for row in rows] == [spec.name for spec in specs]
    for row, spec in zip(rows, specs, strict=True):
        assert_limits(row, spec.metadata["check"])
        assert row["default"] == default_of(spec)


def default_of(spec):
    """As the document writes it."""
    if spec.default_factory is not MISSING:
        return repr(spec.default_factory())
    return "-" if spec.default is MISSING else str(spec.default) if spec.type == "int" else f'"{spec.default}"'


def assert_limits(row, check):
    """Asks the code's own check for the values at the limits of a row, for those beyond, and for other types."""
    kinds = {
        "integer": ([], [True, 1.0, None, "1"]),
        "code": ([], [True, 1.0, None, "1"]),
        "text": ([], [b"x", 1, None]),
        "octets": ([], ["x", 1, None]),
        "map": ([{}, {"k" * 256: object()}], [{"k" * 257: 0}, {1: 0}, [], None]),
    }
    good, bad = (list(values) for values in kinds[row["type"]])
    if row["type"] != "map":
        low, high = map(number, row["limits"].split(".."))
        make = {"text": lambda size: "x" * size, "octets": bytes}.get(row["type"], int)
        good += [make(low), make(high)]
        bad.append(make(high + 1))
        if row["type"] in ("integer", "code") or low:
            bad.append(make(low - 1))
    assert [value for value in good if check(value) is not None] == [], row
    assert [value for value in bad if check(value) is None] == [], row


def test_an_entry_of_a_view_has_the_fields_of_hello():
    """[7.4.1]: six fields, in this order, with the limits of HELLO, and perhaps a seventh."""
    rule = " ".join(rules(DOCUMENT)["7.4.1"].split())
    names = [spec.name for spec in dataclass_fields(Member)]
    assert f"array of six: {', '.join(names[:5])} and {names[5]}, or of seven, with {names[6]} behind them" in rule
    assert names[:6] == [spec.name for spec in dataclass_fields(messages.Hello)][:6]
    assert f"{codec.VIEW_BYTES_MAX:,} octets" in rule


# --------------------------------------------------------------------------------------- the other tables


def test_the_table_of_errors_is_the_table_of_the_code():
    """Whether a call may be tried again is read from here by whoever writes a client."""
    rows = table(section(DOCUMENT, "11. Error codes"), "number")
    found = [(int(row["number"]), row["name"], row["definite"], row["retry"], row["sentence"]) for row in rows]
    word = {True: "yes", False: "no"}
    assert found == [
        (code.value, code.name, word[CODES[code].definite], word[CODES[code].retry], CODES[code].sentence)
        for code in Code
    ]


def test_the_table_of_exact_values_is_the_table_of_the_code():
    """Numbers are append-only: another one is another value."""
    rows = table(section(DOCUMENT, "9.11 Values between ranks"), "ext type")
    assert [(int(row["ext type"]), row["name"]) for row in rows] == [(kind.value, kind.name) for kind in ExactKind]


def test_the_table_of_states_is_the_table_of_the_code():
    """[8.1]: two tables of one machine are one too many, unless they are the same."""
    rows = table(section(DOCUMENT, "8.1 The member"), "event")
    assert [row["event"] for row in rows] == [event.value for event in Event]
    for row, event in zip(rows, Event, strict=True):
        for state in SessionState:
            following = TRANSITIONS[state].get(event)
            assert row[state.name] == (following.name if following else "-"), (event, state)


def test_the_final_refusals_are_those_of_the_code():
    """[8.1]: a member that goes on after one of them is the server that should be gone."""
    text = section(DOCUMENT, "8.1 The member")
    sentence = re.search(r"A \*final\* REFUSE has one of the codes ([A-Z_,\sand]+);", text)
    assert sentence is not None
    assert set(re.findall(r"[A-Z_]{2,}", sentence[1])) == {code.name for code in FINAL_REFUSALS}


def constants(modules: tuple[ModuleType, ...]) -> dict[str, float]:
    found = {name: value for module in modules for name, value in vars(module).items()}
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}


def test_the_table_of_limits_is_the_constants_of_the_code():
    """Who trusts a limit that is not the real one sends messages that end his connection."""
    rows = table(section(DOCUMENT, "12. Limits"), "limit")
    known = constants((*WIRE, control, door, listener, ledger, windows))
    known |= vars(options.ServerOptions())
    assert [row for row in rows if known[row["limit"]] != int(row["value"])] == []
    assert options.ClientOptions().message_bytes_max == options.ServerOptions().message_bytes_max
    missing = {name for name in constants(WIRE) if re.fullmatch(r"[A-Z]\w+_MAX", name)} - {row["limit"] for row in rows}
    assert missing == set()


def test_the_table_of_timers_is_the_defaults_of_the_code():
    """[10.1] and [10.2]: and the relations hold for the defaults."""
    rows = table(section(DOCUMENT, "10. Timers"), "timer")
    known = constants((session, calls, membership, partition_server, relaying, routes))
    for one in (options.ClusterOptions(), options.ServerOptions(), options.ClientOptions()):
        known |= vars(one)
    assert [row for row in rows if known[row["timer"]] != float(row["default"])] == []
    assert known["lease"] >= 3 * known["heartbeat_interval"]
    assert known["leave_timeout"] > known["lease"]
    assert session.OVERSLEEP_TOLERANCE == membership.OVERSLEEP_TOLERANCE


def test_the_zmtp_timers_are_those_of_the_sockets():
    """A member whose coordinator sends no PONG connects again after the time that stands here."""
    rows = table(section(DOCUMENT, "10. Timers"), "option")
    context, bound, port = control.router("127.0.0.1", None, 1)
    other, connected = control.dealer(f"tcp://127.0.0.1:{port}")
    try:
        for made, side in ((bound, "at C"), (connected, "at M")):
            assert [row for row in rows if getattr(made, row["option"]) != int(row[side])] == []
    finally:
        for made in (bound, connected):
            made.close(0)
        context.term()
        other.term()


# --------------------------------------------------------------------------------------------- the rules


def test_rules_are_numbered_by_their_sections_and_in_order():
    """A number that jumps about cannot be found; one that is used twice proves nothing."""
    numbers = list(rules(DOCUMENT))
    assert len(numbers) > 50
    assert numbers == sorted(numbers, key=lambda one: [int(part) for part in one.split(".")])
    for one in numbers:
        part = section(DOCUMENT, f"{one.split('.')[0]}. ")
        if one.count(".") == 2:
            part = section(DOCUMENT, one.rpartition(".")[0] + " ")
        assert f"**[{one}]**" in part


def test_nothing_is_demanded_outside_of_a_rule():
    """A MUST without a number is one that no test can quote."""
    rest = DOCUMENT.replace(section(DOCUMENT, "1. Status"), "").replace(section(DOCUMENT, "2. Language"), "")
    for text in rules(DOCUMENT).values():
        rest = rest.replace(text, "")
    assert not demanding(rest)


def test_every_demand_is_quoted_by_a_test():
    """What the document demands and no test provokes is a wish."""
    known = quoted()
    assert [one for one, text in rules(DOCUMENT).items() if demanding(text) and one not in known] == []


def test_no_test_quotes_a_rule_that_is_not_there():
    """A rule that was renumbered leaves its tests behind."""
    assert {one: names for one, names in quoted().items() if one not in rules(DOCUMENT)} == {}


def test_every_code_and_kind_that_is_named_exists():
    """REFUSED, TIMED_OUT: a name of something that was renamed."""
    known = {code.name for code in Code} | {kind.name for kind in Kind} | {state.name for state in SessionState}
    known |= set(membership.MembershipState.__members__) | set(re.findall(r"`([A-Z_]+)`", DOCUMENT))
    known |= {"MUST", "NOT", "SHOULD", "MAY", "RFC", "ABNF", "UTC", "UTF", "JSON", "SPS", "ZMTP"}
    known |= {cause.name for cause in peering.Cause} | {phase.name for phase in peering.Phase} | {"SUM"}
    known |= set(ExactKind.__members__) | {"SHA", "UUID", "IEEE", "JVM"}
    known |= {"MEMORY", "RELEASE", "FORGET", "SCM_RIGHTS", "F_SEAL_SHRINK", "F_SEAL_GROW", "IPC"}
    known |= {"PING", "PONG", "READY", "NULL", "ROUTER", "DEALER", "REQ", "REP"}
    prose = re.sub(r"```.*?```", "", DOCUMENT, flags=re.DOTALL)
    assert set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", prose)) - known == set()


# ---------------------------------------------------------------------------------------- the transcript


def test_the_transcript_is_what_the_library_sends():
    """Octets that were right once teach a stranger what is wrong now."""
    assert transcript.section(DOCUMENT) == transcript.render(), "run: python tests/support/transcript.py --write"


@pytest.mark.parametrize(
    "block", transcript.parse(transcript.section(DOCUMENT)), ids=lambda block: f"{block.way} {block.title}"
)
def test_the_octets_of_the_transcript_mean_what_stands_beside_them(block):
    """Each line is read by itself, and all of them by the engine and the codec."""
    sender = b"ROUTER" if block.way[0] in "CS" else b"DEALER"
    receiver = zmtp.Engine(b"DEALER" if sender == b"ROUTER" else b"ROUTER", zmtp.Limits(1 << 16, 64))
    if block.title == "opening":
        assert receiver.receive(block.octets) == []
        assert receiver.ready
        assert receiver.metadata[b"socket-type"] == sender
        return
    receiver.receive(zmtp.Engine(sender, zmtp.Limits(1, 1)).output())
    (frames,) = receiver.receive(block.octets)
    message = codec.decode(frames, transcript.RUN_ID)
    assert message.kind.name == block.title
    said = dict(meaning.split(" = ", 1) for _, meaning in block.lines if " = " in meaning)
    values = {spec.name: getattr(message, spec.name) for spec in dataclass_fields(message) if spec.name != "payload"}
    assert said == {name: value.hex() if isinstance(value, bytes) else repr(value) for name, value in values.items()}
    for octets, meaning in block.lines:
        if meaning.startswith("payload: "):
            assert repr(msgpack.unpackb(octets)) == meaning.removeprefix("payload: ")
            assert message.payload == (octets,)
