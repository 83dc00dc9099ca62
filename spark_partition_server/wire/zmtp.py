"""A sans-IO engine for ZMTP 3.1, the protocol under ZeroMQ sockets (RFC 37/ZMTP, NULL mechanism).

One ``Engine`` is one end of one connection. Octets go in by ``receive``, messages come out of it, octets to send wait
in ``output``. It opens nothing, waits for nothing and reads no clock; sockets, deadlines and loops are the business of
``net``. libzmq's DEALER, REQ and ROUTER sockets understand it, and it understands them.

::

    greeting  = signature version mechanism as-server filler                   64 octets, both sides at once
    handshake = READY | ERROR                                                  one command each way
    traffic   = *(message | command)                                           PING is answered, others are ignored
    message   = *(flags=more frame) (flags=last frame)

A frame that has not arrived whole and is long is received straight into its own memory: the owner asks ``room`` for
the place to receive into, and says with ``filled`` how much it put there. The owner may also say where that memory
comes from, and, on one host, take what the other side lends (``lending``).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from ..errors import LocalProtocolError, RemoteProtocolError
from . import lending
from .codes import Code
from .framing import (
    COMMAND,
    DIRECT_BYTES,
    LONG,
    MORE,
    THREE_SHORT_BYTES,
    Frames,
    command,
    encode,
    encode_small,
    encode_vector,
    ready_property,
    three_short,
)

__all__ = ["Engine", "Frames", "Limits", "encode", "encode_small", "encode_vector"]

GREETING_BYTES: Final = 64
RESERVED: Final = 0xF8
NULL_MECHANISM: Final = b"NULL".ljust(20, b"\0")
# 0xFF, 8 octets of padding, 0x7F; version 3.1; mechanism; as-server = 0; 31 octets of filler
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01" + NULL_MECHANISM + bytes(32)

COMMAND_BYTES_MAX: Final = 4096  # READY with a 255 octet identity takes 300
MAPPED_BYTES: Final = 1 << 20  # from here the memory is mapped: pages nobody has filled cost nothing
PING_CONTEXT_MAX: Final = 16
OUTPUT_BYTES_MAX: Final = 64 * 1024  # PONGs that wait to be sent: a peer that pings and never reads is hostile

# Which sockets may talk to which (RFC 28/REQREP).
PEERS: Final[dict[bytes, frozenset[bytes]]] = {
    b"DEALER": frozenset({b"ROUTER", b"REP", b"DEALER"}),
    b"ROUTER": frozenset({b"DEALER", b"REQ", b"ROUTER"}),
}

Allocate: TypeAlias = Callable[[int], memoryview]


def allocate(size: int) -> memoryview:
    """Writable memory for a long frame; memory that nobody fills costs nothing."""
    return memoryview(mmap.mmap(-1, size) if size >= MAPPED_BYTES else bytearray(size))


class Limits:
    """What one connection may send us.

    Attributes:
        message_bytes: octets of one message, all frames together.
        frames: frames of one message.
    """

    __slots__ = ("frames", "message_bytes")

    def __init__(self, message_bytes: int, frames: int) -> None:
        self.message_bytes = message_bytes
        self.frames = frames


class Engine:
    """One end of a connection.

    Args:
        socket_type: ``b"DEALER"`` for a client, ``b"ROUTER"`` for a server.
        limits: what the other side may send; a breach is a ``RemoteProtocolError`` before any memory is spent.
        memory: where the memory of long frames comes from: given its octets, returns a view of as many.
        shared: what the other side lends is asked of it; None: nothing is offered, and nothing taken.

    Attributes:
        ready: both sides have finished the handshake; messages may be sent.
        metadata: what the other side said of itself, names in lower case; empty until ``ready``.
        pongs: contexts of the PONGs received, oldest first; the owner empties it.
        lends: octets of our memory that the other side is ready to map; 0: none, or nothing was offered.
    """

    __slots__ = (
        "_body",
        "_body_flags",
        "_bytes",
        "_failed",
        "_filled",
        "_frames",
        "_greeted",
        "_lent",
        "_limits",
        "_memory",
        "_output",
        "_peers",
        "_plain",
        "_rest",
        "_shared",
        "lends",
        "metadata",
        "pongs",
        "ready",
    )

    def __init__(
        self,
        socket_type: bytes,
        limits: Limits,
        memory: Allocate = allocate,
        shared: lending.Shared | None = None,
    ) -> None:
        if socket_type not in PEERS:
            raise LocalProtocolError(f"this engine plays {sorted(PEERS)}, not {socket_type!r}")
        self.ready = False
        self.metadata: dict[bytes, bytes] = {}
        self.pongs: list[bytes] = []
        self.lends = 0
        self._memory = memory
        self._shared = shared
        self._lent: lending.Lent | None = None  # for the message under way, or the next
        self._peers = PEERS[socket_type]
        self._limits = limits
        self._greeted = False
        self._failed: RemoteProtocolError | None = None
        self._rest: bytes = b""  # octets of a frame that has not arrived whole
        self._frames: Frames = []  # of the message under way
        self._bytes = 0  # of the message under way
        self._body: memoryview | None = None  # memory of a long frame that is being received directly
        self._body_flags = 0
        self._filled = 0
        self._plain = False  # ready, and nothing of a message is here
        ready = ready_property(b"Socket-Type", socket_type) + ready_property(b"Identity", b"")
        if shared is not None:
            ready += ready_property(lending.PROPERTY, lending.offer(shared))
        self._output = bytearray(GREETING + command(b"READY", ready))

    def output(self) -> bytes:
        """The octets that want to be sent now (greeting, handshake, PONG); each is handed out once."""
        if not self._output:
            return b""
        data = bytes(self._output)
        self._output.clear()
        return data

    def ping(self, ttl: float = 0.0, context: bytes = b"") -> bytes:
        """The octets of a PING. The other side answers with a PONG that carries ``context``.

        Args:
            ttl: seconds after which the other side may drop a silent connection; tenths count; 0: no such promise.
            context: at most 16 octets.
        """
        if len(context) > PING_CONTEXT_MAX:
            raise LocalProtocolError(f"a PING carries {PING_CONTEXT_MAX} octets of context, not {len(context)}")
        tenths = round(ttl * 10)
        if not 0 <= tenths <= 0xFFFF:
            raise LocalProtocolError(f"a PING's time to live is within 0..6553.5 s, not {ttl}")
        return command(b"PING", tenths.to_bytes(2, "big") + context)

    def receive(self, data: bytes) -> list[Frames]:
        """Takes octets as they came; returns the messages that are whole now, oldest first.

        Raises:
            RemoteProtocolError: the other side broke the protocol or a limit. The connection is of no further use:
                every later call raises the same.
        """
        if self._plain:
            messages: list[Frames] = []
            taken = three_short(data, 0, len(data), messages)
            return messages if taken == len(data) else messages + self._more(data, taken)
        return self._more(data, 0)

    def _more(self, data: bytes, start: int) -> list[Frames]:
        if self._failed is not None:
            raise self._failed
        try:
            if self._body is not None:
                return self._receive_body(data)
            if self._rest:
                data = self._rest + data
                self._rest = b""
            if not self._greeted:
                start = self._greeting(data)
                if not self._greeted:
                    return []
            return self._traffic(data, start)
        except RemoteProtocolError as error:
            self._failed = error
            self._plain = False
            raise

    @property
    def begun(self) -> Frames:
        """The frames that have come of a message which is not whole; after a breach of a limit, what led up to it."""
        return self._frames

    def room(self) -> memoryview | None:
        """Where the rest of a long frame is to be received into; None: use ``receive``."""
        return None if self._body is None else self._body[self._filled :]

    @property
    def long_octets(self) -> int:
        """The octets of the long frame that is under way; 0: there is none."""
        return 0 if self._body is None else len(self._body)

    def move(self, memory: memoryview) -> None:
        """Has the long frame that is under way go on in other memory of its length; what has come of it is copied."""
        body = self._body
        assert body is not None, "move() without room()"
        memory[: self._filled] = body[: self._filled]
        self._body = memory

    def filled(self, count: int) -> list[Frames]:
        """``count`` octets were put into ``room``; returns the messages that are whole now."""
        body = self._body
        assert body is not None, "filled() without room()"
        self._filled += count
        assert self._filled <= len(body), "more octets than there was room for"
        if self._filled < len(body):
            return []
        self._body = None
        self._frames.append(body)
        if self._body_flags & MORE:
            return []
        message, self._frames, self._bytes = self._frames, [], 0
        return [message if self._lent is None else self._with_lent(message)]

    # ------------------------------------------------------------------------------------ the three phases

    def _greeting(self, data: bytes) -> int:
        """Checks as much of the greeting as is there, so that a stranger is refused at its first octet."""
        if (data and data[0] != 0xFF) or (len(data) > 9 and not data[9] & 1):
            raise RemoteProtocolError("the other side does not speak ZMTP", Code.MALFORMED)
        if len(data) > 10 and data[10] < 3:
            raise RemoteProtocolError(f"ZMTP {data[10]}.x is older than 3.0", Code.VERSION)
        if len(data) < GREETING_BYTES:
            self._rest = data
            return 0
        mechanism = data[12:32]
        if mechanism != NULL_MECHANISM:
            name = mechanism.rstrip(b"\0").decode("ascii", "replace")
            raise RemoteProtocolError(f"the other side asks for the {name} mechanism, this one for NULL")
        self._greeted = True
        return GREETING_BYTES

    def _traffic(self, data: bytes, start: int) -> list[Frames]:
        """Parses frames from ``data``; what is left over waits in ``_rest``, or in ``_body`` when it is long."""
        messages: list[Frames] = []
        frames, total = self._frames, self._bytes
        bytes_max, frames_max = self._limits.message_bytes, self._limits.frames
        position, end = start, len(data)
        while end - position >= 2:
            flags = data[position]
            if flags & LONG:
                if end - position < 9:
                    break
                size = int.from_bytes(data[position + 1 : position + 9], "big")
                head = position + 9
            else:
                size = data[position + 1]
                head = position + 2
            stop = head + size
            if flags > (MORE | LONG) or not self.ready:
                self._check_command(flags, size)
                if stop > end:
                    break
                self._take_command(data[head:stop])
                position = stop
                continue
            if total + size > bytes_max or len(frames) >= frames_max:
                self._frames = frames
                self._too_much(len(frames), total + size, size)
            if stop > end:
                if size >= DIRECT_BYTES:
                    self._begin_body(flags, size, data[head:])
                    total += size
                    position = end
                break  # else its header will be read again
            frames.append(data[head:stop])
            position = stop
            if flags & MORE:
                total += size
            else:
                messages.append(frames if self._lent is None else self._with_lent(frames))
                frames, total = [], 0
        self._frames, self._bytes = frames, total
        if position < end:
            self._rest = data[position:]
        whole = self._body is None and not self._rest and not frames and self._lent is None
        self._plain = whole and self.ready and bytes_max >= THREE_SHORT_BYTES and frames_max >= 3
        return messages

    def _with_lent(self, frames: Frames) -> Frames:
        assert self._lent is not None
        places, self._lent = self._lent, None
        try:
            return lending.put(frames, places, self._limits.message_bytes)
        except RemoteProtocolError as error:
            self._failed = error
            raise

    def _too_much(self, frames: int, total: int, size: int) -> None:
        limits = self._limits
        if frames >= limits.frames:
            raise RemoteProtocolError(f"a message of more than {limits.frames} frames", Code.MALFORMED)
        raise RemoteProtocolError(
            f"a message of at least {total} octets (this frame: {size}), the limit is {limits.message_bytes}",
            Code.TOO_LARGE,
        )

    # ---------------------------------------------------------------------------------------- long frames

    def _begin_body(self, flags: int, size: int, head: bytes) -> None:
        self._body = self._memory(size)
        self._body[: len(head)] = head
        self._body_flags = flags
        self._filled = len(head)

    def _receive_body(self, data: bytes) -> list[Frames]:
        """Octets for a long frame that came by ``receive`` all the same."""
        assert self._body is not None
        count = min(len(self._body) - self._filled, len(data))
        self._body[self._filled : self._filled + count] = data[:count]
        messages = self.filled(count)
        return messages + self._traffic(data, count) if count < len(data) else messages

    # ------------------------------------------------------------------------------------------- commands

    def _check_command(self, flags: int, size: int) -> None:
        if flags & RESERVED or (flags & COMMAND and flags & MORE):
            raise RemoteProtocolError(f"a frame with flags {flags:#04x}", Code.MALFORMED)
        if not flags & COMMAND:
            raise RemoteProtocolError("a message before the handshake was over", Code.MALFORMED)
        if size > COMMAND_BYTES_MAX:
            raise RemoteProtocolError(f"a command of {size} octets, over {COMMAND_BYTES_MAX}", Code.MALFORMED)

    def _take_command(self, content: bytes) -> None:
        length = content[0] if content else 0
        name, body = content[1 : 1 + length], content[1 + length :]
        if not length or len(name) < length:
            raise RemoteProtocolError("a command without a name", Code.MALFORMED)
        if name == b"ERROR":
            reason = body[1 : 1 + body[0]].decode("utf-8", "replace") if body else ""
            raise RemoteProtocolError(f"the other side refused the connection: {reason or 'no reason given'}")
        if not self.ready:
            if name != b"READY":
                raise RemoteProtocolError(f"{name!r} where READY was due", Code.MALFORMED)
            self._take_ready(body)
        elif name == b"PING":
            if not 2 <= len(body) <= 2 + PING_CONTEXT_MAX:
                raise RemoteProtocolError("a malformed PING", Code.MALFORMED)
            self._output += command(b"PONG", body[2:])
            if len(self._output) > OUTPUT_BYTES_MAX:
                raise RemoteProtocolError("the other side pings and does not read the answers", Code.MALFORMED)
        elif name == b"PONG":
            self.pongs = [*self.pongs[-63:], body[:PING_CONTEXT_MAX]]
        elif self._shared is not None and name in lending.COMMANDS:
            self._lent = lending.lent(self._shared, name, body, self._lent)
        # any other command belongs to a later version of ZMTP or to other socket types: ignored

    def _take_ready(self, body: bytes) -> None:
        self.metadata = dict(_properties(body))
        peer = self.metadata.get(b"socket-type", b"")
        if peer not in self._peers:
            self._output += command(b"ERROR", b"\x13Invalid socket type")
            raise RemoteProtocolError(f"the other side is a {peer!r} socket, wanted: {sorted(self._peers)}")
        if self._shared is not None:
            self.lends = lending.offered(self.metadata.get(lending.PROPERTY.lower(), b""))
        self.ready = True


def _properties(body: bytes) -> Iterable[tuple[bytes, bytes]]:
    """The name-value pairs of a READY command."""
    position = 0
    while position < len(body):
        start = position + 1 + body[position]
        name = body[position + 1 : start]
        length = int.from_bytes(body[start : start + 4], "big")
        position = start + 4 + length
        if not name or position > len(body):
            raise RemoteProtocolError("malformed metadata in READY", Code.MALFORMED)
        yield name.lower(), body[start + 4 : position]
