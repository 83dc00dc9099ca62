"""The frames of requests: arguments checked and encoded. Waits for nothing and opens nothing."""

from __future__ import annotations

from math import isnan
from operator import index
from typing import Any

from ..core.calls import Calls
from ..errors import MessageTooLarge, MethodNotFound
from ..wire import codec
from ..wire.codes import Code
from ..wire.framing import encode_behind
from ..wire.messages import METHOD_CHARS_MAX, U32, Frame, Kind, Member
from ..wire.payload import ValueEncoder, size_of

__all__ = ["Requests", "check_credit", "check_method", "rank_of", "remaining_ms", "seconds_of"]

LONGEST_TIMEOUT = 4e6  # seconds; the field for it ends at 49 days
SMALL_BYTES = 4096  # a single frame up to this size is within every limit


class Requests:
    """Makes the frames of requests. Belongs to one thread.

    Args:
        run_id: of the cluster's run.
        calls: knows the servers' limit.
        message_bytes_max: the client's own.

    Attributes:
        encode: a value to its frames, as ``ValueEncoder.encode``.
        batch: the preamble of a BATCH.
    """

    __slots__ = (
        *("_bytes_max", "_calls", "_cancel", "_credit", "_head", "_opening", "_pack", "_stream"),
        *("batch", "encode"),
    )

    def __init__(self, run_id: bytes, calls: Calls, message_bytes_max: int) -> None:
        self._bytes_max = message_bytes_max
        self._calls = calls
        self._opening = codec.preamble(Kind.REQUEST, run_id)
        self._head = bytes((1, len(self._opening))) + self._opening  # a short frame, and more follow
        self._cancel = codec.preamble(Kind.CANCEL, run_id)
        self._stream = codec.preamble(Kind.STREAM, run_id)
        self._credit = codec.preamble(Kind.CREDIT, run_id)
        self.batch = codec.preamble(Kind.BATCH, run_id)
        self.encode = ValueEncoder().encode
        self._pack = codec.field_packer()

    def payload(self, rank: int, method: str, args: Any, kwargs: Any) -> list[Frame]:
        """The payload of a call, which may be sent more than once.

        Raises:
            MethodNotFound: no method can have that name.
            TypeError: an argument cannot be sent; the text names it.
            MessageTooLarge: it is over a limit; nothing was sent.
        """
        if type(method) is not str or not 0 < len(method) <= METHOD_CHARS_MAX:
            check_method(rank, method)
        payload = self.encode((args, kwargs), ("args", "kwargs"))
        if len(payload) > 1 or len(payload[0]) > SMALL_BYTES:
            self.check_size(payload, rank, method)
        return payload

    def check_size(self, payload: list[Frame], rank: int, method: str) -> int:
        """The octets of a request. Raises ``MessageTooLarge`` (definite) where that is over a limit."""
        size, limit, whose = size_of(payload), self._bytes_max, "ClientOptions"
        if 0 < self._calls.message_bytes_max < limit:
            limit, whose = self._calls.message_bytes_max, "the servers' ServerOptions"
        if size > limit:
            text = f"the request takes {size} octets, the limit is {limit} ({whose}.message_bytes_max)"
            raise MessageTooLarge(text, rank=rank, method=method, code=Code.TOO_LARGE, definite=True)
        return size

    def frames(
        self,
        call_id: int,
        method: str,
        timeout: float,
        member: Member,
        payload: list[Frame],
        opening: bytes | None = None,
    ) -> list[Frame]:
        """The frames of a REQUEST, or of what ``opening`` says. The caller waits ``timeout`` seconds."""
        fields = (call_id, method, remaining_ms(timeout), member.rank, member.incarnation)
        return codec.request_frames(opening or self._opening, fields, payload, self._pack)

    def octets(self, call_id: int, method: str, timeout: float, member: Member, payload: list[Frame]) -> bytes | None:
        """What ``frames`` has, as octets; None: it is not small."""
        if len(payload) > 1:
            return None
        milliseconds = int(timeout * 1000) + 1 if 0 < timeout < LONGEST_TIMEOUT else remaining_ms(timeout)
        fields = (call_id, method, milliseconds, member.rank, member.incarnation)
        return encode_behind(self._head, self._pack(fields), payload[0])

    def cancel(self, call_id: int) -> list[Frame]:
        """The frames of a CANCEL: nobody waits for the answer of that call any more."""
        return [self._cancel, self._pack((call_id,))]

    def stream(
        self, call_id: int, method: str, timeout: float, member: Member, payload: list[Frame], credit: int
    ) -> list[Frame]:
        """The frames of a STREAM whose caller waits ``timeout`` seconds for the first of at most ``credit`` items."""
        fields = (call_id, method, remaining_ms(timeout), member.rank, member.incarnation, credit)
        return [self._stream, self._pack(fields), *payload]

    def credit(self, call_id: int, items: int) -> list[Frame]:
        """The frames of a CREDIT: so many items of a stream may have been sent in all."""
        return [self._credit, self._pack((call_id, items, 0))]


def check_method(rank: int, method: Any) -> None:
    """Raises where ``method`` cannot be a method's name."""
    if type(method) is not str:
        raise TypeError(f"a method is named by a text, not by {method!r:.60}: call(partition, method, ...)")
    if not 0 < len(method) <= METHOD_CHARS_MAX:
        text = f"a method's name has 1 to {METHOD_CHARS_MAX} characters, not {len(method)}"
        raise MethodNotFound(text, rank=rank, method=method[:METHOD_CHARS_MAX])


def check_credit(credit: Any) -> None:
    """Raises ``ValueError`` where ``credit`` is no number of items that a stream can have ahead of its reader."""
    if type(credit) is not int or not 0 < credit <= U32:
        raise ValueError(f"credit must be a number of items above 0, not {credit!r:.60}")


def remaining_ms(timeout: float) -> int:
    """The field that carries a timeout in seconds."""
    if timeout >= LONGEST_TIMEOUT:
        return U32
    return int(timeout * 1000) + 1 if timeout > 0 else 1


def rank_of(partition: Any) -> int:
    """A partition as a plain integer; numpy's integers, of ``hash(key) % n``, are as good.

    Raises:
        TypeError: it is none.
    """
    try:
        return index(partition)
    except TypeError:
        raise TypeError(f"partition must be an integer, not {partition!r:.60}: call(partition, method, ...)") from None


def seconds_of(timeout: Any) -> float:
    """A timeout that a caller has given, as it is.

    Raises:
        TypeError, ValueError: it is no number of seconds.
    """
    if not isinstance(timeout, (int, float)):
        try:
            timeout = timeout.__float__()  # numpy's numbers, Decimal, Fraction; a text has none
        except AttributeError:
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r:.60}") from None
    if isnan(timeout):
        raise ValueError("timeout must be a number of seconds, not NaN")
    seconds: float = timeout
    return seconds
