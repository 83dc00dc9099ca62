"""The smallest useful session, octet by octet: section 17 of wire/PROTOCOL.md.

The rules of ``core`` say what is sent, the codec and the engine of ``wire`` say in which octets; here the two are
played against each other at literal times, and the octets are written down with what they mean. Run it to see the
section: ``python tests/support/transcript.py``; with ``--write`` it is put into PROTOCOL.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from spark_partition_server.core.dispatch import Dispatch
from spark_partition_server.core.effects import Effect, Send
from spark_partition_server.core.membership import Membership
from spark_partition_server.core.session import Session
from spark_partition_server.wire import codec, zmtp
from spark_partition_server.wire.codes import Code
from spark_partition_server.wire.messages import Hello, Kind, Lookup, Message
from spark_partition_server.wire.payload import encode_value

__all__ = ["ANSWER", "PROTOCOL", "RUN_ID", "TOKEN", "Block", "blocks", "parse", "render", "section", "spoken"]

PROTOCOL = Path(zmtp.__file__).with_name("PROTOCOL.md")
RUN_ID = bytes.fromhex("0123456789abcdef")
TOKEN = bytes(range(0xA0, 0xC0))
ANSWER = 42  # what get("alice") returns
PORT = 40001
OCTETS_A_LINE = 16
MARKS = re.compile(r"(<!-- transcript -->\n```\n).*?(\n```\n<!-- end of transcript -->)", re.DOTALL)

Line = tuple[bytes, str]  # octets and what they mean


class Block(NamedTuple):
    """What one side sends at one time.

    Attributes:
        way: sender and receiver, as in ``K>S``.
        title: the kind of message, or ``opening``.
        lines: the octets in pieces, each with its meaning.
    """

    way: str
    title: str
    lines: tuple[Line, ...]

    @property
    def octets(self) -> bytes:
        """Everything that is sent."""
        return b"".join(octets for octets, _ in self.lines)


# ------------------------------------------------------------------------------------------ the session


def blocks() -> list[Block]:
    """The whole session, in order."""
    membership = Membership(1, TOKEN, 1.0, 15.0, {"idempotent": ["get"]})
    endpoint = f"tcp://127.0.0.1:{PORT}"
    session = Session(Hello(0, 7, 0, "127.0.0.1", PORT, endpoint, TOKEN, codec.VERSION, codec.VERSION), 60.0)
    dispatch = Dispatch(0, 7, {"get": {"alice": ANSWER}.get})

    found = [_opening("M>C", b"DEALER"), _opening("C>M", b"ROUTER")]
    hello = _only(session.start(0.0))
    welcome = _only(membership.receive(hello, b"M", 0.1))
    session.receive(welcome, None, 0.2)
    found += [_block("M>C", hello), _block("C>M", welcome)]

    lookup = Lookup(0)
    found += [_block("K>C", lookup), _block("C>K", _only(membership.receive(lookup, b"K", 0.3)))]
    found += _call(dispatch)

    heartbeat = _only(session.tick(1.2))
    found += [_block("M>C", heartbeat), _block("C>M", _only(membership.receive(heartbeat, b"M", 1.3)))]

    shutdown = _only(membership.shutdown("the cluster stops", 1.0))
    session.receive(shutdown, None, 2.0)
    goodbye = _only(session.leave(Code.OK))
    membership.receive(goodbye, b"M", 2.1)
    assert not membership.members
    return [*found, _block("C>M", shutdown), _block("M>C", goodbye)]


def _call(dispatch: Dispatch) -> Iterator[Block]:
    fields = (1, "get", 1000, 0, 7)
    request = codec.request_frames(codec.preamble(Kind.REQUEST, RUN_ID), fields, encode_value((("alice",), {})))
    yield _block("K>S", codec.decode(request, RUN_ID))
    handler = dispatch.admit(codec.read_request(request, request[0], RUN_ID), 0.4, 0.4)
    assert callable(handler)
    reply = codec.reply_frames(codec.preamble(Kind.REPLY, RUN_ID), 1, encode_value(handler("alice")))
    yield _block("S>K", codec.decode(reply, RUN_ID))


def _only(effects: Sequence[Effect]) -> Message:
    (message,) = (effect.message for effect in effects if isinstance(effect, Send))
    return message


# ------------------------------------------------------------------------------------------- the octets


def _opening(way: str, socket_type: bytes) -> Block:
    octets = zmtp.Engine(socket_type, zmtp.Limits(1, 1)).output()
    lines = (
        (octets[:10], "signature"),
        (octets[10:12], "ZMTP version 3.1"),
        (octets[12:32], "mechanism NULL, filled up to 20 octets"),
        (octets[32:33], "as-server 0"),
        (octets[33:64], "filler"),
        (octets[64:66], f"a command of {octets[65]} octets"),
        (octets[66:72], "READY"),
        (octets[72:84], "property Socket-Type"),
        (octets[84:94], f"6 octets: {socket_type.decode()}"),
        (octets[94:103], "property Identity"),
        (octets[103:], "0 octets: none"),
    )
    return _checked(Block(way, "opening", lines), octets)


def _block(way: str, message: Message) -> Block:
    frames = [bytes(frame) for frame in codec.encode(message, RUN_ID)]
    lines: list[Line] = []
    for index, frame in enumerate(frames):
        last = index == len(frames) - 1
        assert len(frame) < 256, "a transcript with a long frame wants another header here"
        header = bytes((0 if last else 1, len(frame)))
        lines.append((header, f"{'the last' if last else 'a'} frame of {len(frame)}"))
        lines += _preamble(frame) if index == 0 else _fields(frame, message) if index == 1 else _payload(frame, message)
    return _checked(Block(way, message.kind.name, tuple(lines)), zmtp.encode(frames))


def _preamble(frame: bytes) -> Iterator[Line]:
    yield frame[:3], "magic SPS"
    yield frame[3:4], f"version {frame[3]}"
    yield frame[4:5], f"kind {frame[4]}: {Kind(frame[4]).name}"
    yield frame[5:8], "flags and reserved"
    yield frame[8:], "run id"


def _fields(frame: bytes, message: Message) -> Iterator[Line]:
    names = [spec.name for spec in dataclass_fields(message) if spec.name != "payload"]
    yield frame[:1], f"fields: an array of {len(names)}"
    for name in names:
        value = getattr(message, name)
        yield msgpack.packb(value), f"{name} = {_shown(value)}"


def _payload(frame: bytes, message: Message) -> Iterator[Line]:
    yield frame, f"payload: {msgpack.unpackb(frame)!r}"


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else repr(int(value) if isinstance(value, Code) else value)


def _checked(block: Block, octets: bytes) -> Block:
    assert block.octets == octets, f"{block.way} {block.title}: the pieces are not the whole"
    return block


# ---------------------------------------------------------------------------------------------- the text


def render() -> str:
    """The text of the section's block."""
    return "\n\n".join("\n".join([f"{block.way} {block.title}", *_rows(block.lines)]) for block in blocks())


def _rows(lines: Sequence[Line]) -> Iterator[str]:
    for octets, meaning in lines:
        for start in range(0, len(octets), OCTETS_A_LINE):
            piece = octets[start : start + OCTETS_A_LINE].hex(" ")
            yield f"    {piece:<{3 * OCTETS_A_LINE}} {meaning if start == 0 else ''}".rstrip()


def parse(text: str) -> list[Block]:
    """What a reader makes of such a text; a line of octets without a meaning continues the one before."""
    found: list[Block] = []
    for paragraph in text.split("\n\n"):
        head, *rows = paragraph.split("\n")
        lines: list[Line] = []
        for row in rows:
            octets = bytes.fromhex(row[4 : 4 + 3 * OCTETS_A_LINE])
            meaning = row[5 + 3 * OCTETS_A_LINE :]
            if meaning:
                lines.append((octets, meaning))
            else:
                lines[-1] = (lines[-1][0] + octets, lines[-1][1])
        way, _, title = head.partition(" ")
        found.append(Block(way, title, tuple(lines)))
    return found


def section(document: str) -> str:
    """The transcript as PROTOCOL.md has it."""
    match = MARKS.search(document)
    assert match is not None, "PROTOCOL.md has lost the marks around its transcript"
    return match[0][len(match[1]) : -len(match[2])]


def spoken() -> dict[tuple[str, str], bytes]:
    """The octets of PROTOCOL.md's transcript by way and title."""
    found = parse(section(PROTOCOL.read_text(encoding="utf-8")))
    return {(block.way, block.title): block.octets for block in found}


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        document = PROTOCOL.read_text(encoding="utf-8")
        section(document)
        PROTOCOL.write_text(MARKS.sub(lambda match: match[1] + render() + match[2], document), encoding="utf-8")
    else:
        sys.stdout.write(render() + "\n")


if __name__ == "__main__":
    main()
