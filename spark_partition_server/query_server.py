"""``QueryServer``: the methods of a class, answered over the direct lane.

The hot path of the server: frames -> ``read_request`` -> ``Dispatch.admit`` -> the method -> ``encode_value`` ->
frames, in the listener's thread and without a hop.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from .core.dispatch import Dispatch, Handler, handler_error, shorten
from .errors import RemoteProtocolError
from .net.clock import monotonic
from .net.endpoints import bind_tcp, tcp_endpoint
from .net.listener import Listener
from .partition_server import PartitionServer
from .wire import codec
from .wire.codes import Code
from .wire.messages import TEXT_CHARS_MAX, Error, Frame, Kind, Message, Refuse
from .wire.payload import ValueEncoder, decode_value, size_of
from .wire.zmtp import Frames

__all__ = ["QueryServer", "idempotent_methods", "method"]

log = logging.getLogger("spark_partition_server.server")

MARK = "__partition_server_method__"
# what PartitionServer sets on an instance, which would hide a method of that name
RESERVED_NAMES = frozenset(
    {"config", "coordinator_url", "host", "itr", "job_group", "options", "partition_ind", "port", "run_id", "token"}
)
RESERVED = "timeout"  # client.call(partition, method, timeout=...) takes it

AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Any])


@overload
def method(function: AnyHandler, /) -> AnyHandler: ...
@overload
def method(*, idempotent: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...
def method(function: Any = None, /, *, idempotent: bool = False) -> Any:
    """Marks a method of a ``QueryServer`` as one that clients may call.

    Args:
        idempotent: running it twice is as good as once; the client then repeats it when its outcome is unknown.

    Raises:
        TypeError: the method has a parameter called ``timeout``, which ``call`` keeps for itself.
    """

    def mark(marked: AnyHandler) -> AnyHandler:
        function = getattr(marked, "__func__", marked)  # of a static method or a class method
        if RESERVED in inspect.signature(function).parameters:
            raise TypeError(f"{function.__qualname__}: 'timeout' is reserved for the caller; rename the parameter")
        setattr(function, MARK, {"idempotent": idempotent})
        return marked

    return mark if function is None else mark(function)


class QueryServer(PartitionServer):
    """Serves the methods marked with ``@method``.

    Example::

        class Lookup(QueryServer):
            def init_partition(self, rows):
                self.values = dict(rows)

            @method
            def get(self, key):
                return self.values.get(key)
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        taken = sorted(name for name in _marks_of(cls) if name in RESERVED_NAMES or hasattr(PartitionServer, name))
        if taken:
            raise TypeError(f"{cls.__qualname__}.{taken[0]}: PartitionServer uses that name itself; rename the method")

    def init_partition(self, rows: Iterable[Any]) -> None:
        """Builds the state that the methods use. Override.

        Args:
            rows: the partition's iterator; empty where the partition is.
        """

    def _launch_server(self) -> None:
        options = self.options
        listening = bind_tcp(self._bind_host(), self._ports())
        try:
            self.port = port = listening.getsockname()[1]
            self.init_partition(self.itr)
            self.host, self.port = self._life.host, port  # names that init_partition may have used
            self._answering = _Answering(self, _handlers(self))
            self._listener = Listener(
                [listening],
                self._answering.answer,
                options.message_bytes_max,
                options.connections_max,
                options.handshake_timeout,
                options.write_timeout,
            )
            self._register()
        except BaseException:
            listening.close()
            raise
        self._listener.serve()

    def _endpoint(self) -> str:
        assert self.port is not None
        return tcp_endpoint(self.host, self.port)

    def shutdown(self, reason: str = "", grace: float = 0.0) -> None:
        """Answers no more requests; replies that wait to be sent get ``grace`` seconds."""
        self._answering.dispatch.leaving = True
        self._listener.stop(grace)


def idempotent_methods(server: PartitionServer) -> list[str]:
    """The names of the methods that may run twice, for the view's meta."""
    return sorted(name for name, mark in _marks(server).items() if mark["idempotent"])


def _marks(server: Any) -> dict[str, dict[str, bool]]:
    return _marks_of(type(server))


def _marks_of(kind: type) -> dict[str, dict[str, bool]]:
    marks = {}
    for name in dir(kind):
        mark = getattr(getattr(kind, name, None), MARK, None)
        if mark is not None:
            marks[name] = mark
    return marks


def _handlers(server: QueryServer) -> dict[str, Handler]:
    return {name: getattr(server, name) for name in _marks(server)}


class _Answering:
    """Turns the frames of a request into the frames of its answer."""

    def __init__(self, server: QueryServer, handlers: dict[str, Handler]) -> None:
        life = server._life
        self.dispatch = Dispatch(life.who.rank, life.who.incarnation, handlers)
        self._bytes_max = life.options.message_bytes_max
        self._run_id = life.run_id
        self._request = codec.preamble(Kind.REQUEST, life.run_id)
        self._reply = codec.preamble(Kind.REPLY, life.run_id)
        self._values = ValueEncoder()
        self._pack_fields = codec.field_packer()

    def answer(self, frames: Frames, received: float) -> Sequence[Frame] | None:
        """The answer to one message; None: silence. Raises nothing: a message must not end the server."""
        try:
            return self._answer(frames, received)
        except Exception:
            log.exception("a message could not be answered: a bug of this library")
            return self._encode(Refuse(Code.UNEXPECTED, "the server failed to answer; its log says why"))

    def _answer(self, frames: Frames, received: float) -> Sequence[Frame] | None:
        try:
            fields = codec.read_request(frames, self._request, self._run_id)
        except RemoteProtocolError as error:
            return self._refuse(error, frames[0])
        call_id = fields[0]
        handler = self.dispatch.admit(fields, received, monotonic())
        if type(handler) is Error:
            return self._encode(handler)
        assert callable(handler)
        try:
            value = decode_value(frames[2:])
            args, kwargs = value
            if type(args) is not list or type(kwargs) is not dict:
                raise RemoteProtocolError("the value of a request is [args, kwargs]", Code.INVALID_ARGUMENT)
        except (RemoteProtocolError, ImportError, TypeError, ValueError) as error:
            return self._encode(_invalid(call_id, f"the arguments cannot be decoded: {error}"))
        try:
            result = handler(*args, **kwargs)
        except KeyboardInterrupt:
            raise  # somebody wants this process to end
        except BaseException as error:  # noqa: BLE001 - whatever else it raises is data for the caller
            return self._encode(_failed(call_id, handler, args, kwargs, error))
        try:
            payload = self._values.encode(result)
        except TypeError as error:
            return self._encode(handler_error(call_id, "TypeError", f"its result cannot be sent: {error}", ""))
        if size_of(payload) > self._bytes_max:
            text = f"the reply takes {size_of(payload)} octets, the limit is {self._bytes_max} (message_bytes_max)"
            return self._encode(Error(call_id, Code.REPLY_TOO_LARGE, text))
        return codec.reply_frames(self._reply, call_id, payload, self._pack_fields)

    def _refuse(self, error: RemoteProtocolError, preamble: Frame) -> list[Frame] | None:
        """A stranger gets silence; whoever speaks the protocol gets the reason, under the run id it came with."""
        code = Code.of(error.code)
        log.debug("refused code=%s error=%s", code.name, error)
        if code is Code.MALFORMED:
            return None
        return codec.encode(Refuse(code, str(error)), codec.run_id_of(preamble, self._run_id))

    def _encode(self, message: Message) -> list[Frame]:
        return codec.encode(message, self._run_id)


def _failed(call_id: int, handler: Handler, args: Any, kwargs: Any, error: BaseException) -> Error:
    """What a raised exception becomes: arguments that do not fit are the caller's fault and definite."""
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    if isinstance(error, TypeError) and inner is None:  # raised by the call itself, not inside the method
        try:
            inspect.signature(handler).bind(*args, **kwargs)
        except TypeError as mismatch:
            return _invalid(call_id, f"the arguments do not fit: {mismatch}")
        except ValueError:
            pass  # no signature to be had
    if inner is not None:
        error = error.with_traceback(inner)  # the server's own frame says nothing
    text = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is one all the same
        message = "its text cannot be printed"
    return handler_error(call_id, type(error).__name__, message, text)


def _invalid(call_id: int, text: str) -> Error:
    return Error(call_id, Code.INVALID_ARGUMENT, shorten(text, TEXT_CHARS_MAX))
