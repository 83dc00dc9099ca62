"""Reduction operations, mpi4py's ``Op``: called with two Python objects, or applied to two buffers in place.

With objects an operation is what Python makes of it: ``SUM(x, y)`` is ``x + y``, for lists too; ``MAX`` is whichever is
greater. With buffers it works item by item on numbers (``wire.arithmetic``). Where the order of the operands matters,
``x`` is what comes from the lower rank.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from ..wire import arithmetic
from .buffers import check_alike, read_buffer
from .datatypes import Datatype

__all__ = ["Op", "commutes"]

Function = Callable[..., Any]


class Op:
    """A reduction operation. ``Op()`` is the null operation, which can do nothing."""

    __slots__ = ("_commutative", "_function", "_name")
    __hash__ = None  # type: ignore[assignment]  # Free changes what it is equal to

    def __init__(self, op: Op | None = None) -> None:
        self._name: str = "" if op is None else op._name
        self._function: Function | None = None if op is None else op._function
        self._commutative: bool = True if op is None else op._commutative

    @classmethod
    def Create(cls, function: Callable[[memoryview, memoryview, Datatype], None], commute: bool = False) -> Op:
        """An operation of the user's.

        Args:
            function: with buffers it is called with ``(source, target, datatype)`` and leaves
                ``source op target`` in ``target``, both of octets; with objects it is called with ``(x, y, None)`` and
                returns ``x op y``.
            commute: whether the order of the operands does not matter; ranks are then combined in any order.
        """
        if not callable(function):
            raise TypeError(f"an operation needs a function, not a {type(function).__name__}")
        op = cls()
        op._function = function
        op._commutative = bool(commute)
        return op

    @classmethod
    def _predefined(cls, name: str, function: Function | None, commutative: bool = True) -> Op:
        op = cls()
        op._name, op._function, op._commutative = name, function, commutative
        return op

    def __call__(self, x: Any, y: Any) -> Any:
        """``x op y``.

        Raises:
            ValueError: this is ``OP_NULL``.
        """
        if self._name:
            return self._function(x, y)  # type: ignore[misc]  # every operation with a name has one
        if self._function is None:
            raise ValueError("OP_NULL cannot be called")
        return self._function(x, y, None)

    def __bool__(self) -> bool:
        return self._function is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Op):
            return NotImplemented
        return self._name == other._name and self._function == other._function

    def __repr__(self) -> str:
        if self._function is None:
            return "MPI.OP_NULL"
        return f"<MPI.{self._name}>" if self._name else f"<MPI.Op {self.name}>"

    def __reduce__(self) -> Any:
        if self._name:
            return self._name  # one of this module's
        return _rebuilt, (self._function, self._commutative)

    @property
    def name(self) -> str:
        """For signatures and errors: ``SUM``; of a user's operation the name of its function."""
        return self._name or str(getattr(self._function, "__qualname__", "OP_NULL"))

    @property
    def is_predefined(self) -> bool:
        """Whether it is one of ``MPI``'s own."""
        return self._function is None or bool(self._name)

    @property
    def is_commutative(self) -> bool:
        """Whether the order of the operands does not matter."""
        return self._commutative

    def Is_commutative(self) -> bool:
        """Whether the order of the operands does not matter."""
        return self._commutative

    def Free(self) -> None:
        """Makes a user's operation null.

        Raises:
            ValueError: it is a predefined one.
        """
        if self.is_predefined:
            raise ValueError(f"{self!r} is predefined and cannot be freed")
        self._function = None

    def free(self) -> None:
        """As ``Free``, and nothing where there is nothing to free."""
        if not self.is_predefined:
            self.Free()

    def check(self, datatype: Datatype) -> None:
        """Raises what ``reduce`` would raise for buffers of that type.

        Raises:
            TypeError: the operation is not defined for such items; the text says what to use instead.
        """
        if self._name:
            if not arithmetic.is_defined(self._name, datatype.dtype):
                raise TypeError(_undefined(self._name, datatype))
        elif self._function is None:
            raise ValueError("OP_NULL cannot be applied")

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """``inoutbuf = inbuf op inoutbuf``, item by item, in this process.

        Args:
            inbuf: a buffer specification.
            inoutbuf: another one, of as many items of the same type, which is overwritten.

        Raises:
            TypeError, ValueError: as ``reduce``; one of them is no such buffer.
        """
        target, source = read_buffer(inoutbuf, writable=True), read_buffer(inbuf)
        check_alike(source, target)
        self.reduce(source.octets, target.octets, target.datatype)

    def reduce(self, source: memoryview, target: memoryview, datatype: Datatype) -> None:
        """``target = source op target``, item by item.

        Args:
            source: octets of the lower rank's items; as many as ``target`` has.
            target: octets of the higher rank's items, which are overwritten.

        Raises:
            TypeError, ValueError: as ``check``; whatever a user's function raises.
        """
        self.check(datatype)
        if not target.nbytes:
            return
        if self._name:
            arithmetic.apply(self._name, source, target, datatype.dtype)
        else:
            self._function(source, target, datatype)  # type: ignore[misc]  # check has seen that there is one


def commutes(op: Any) -> bool:
    """Whether ranks may be combined in any order. Of a plain function nobody knows, so it is called in rank order."""
    return isinstance(op, Op) and op.is_commutative


def _rebuilt(function: Function | None, commutative: bool) -> Op:
    return Op() if function is None else Op.Create(function, commutative)


def _undefined(name: str, datatype: Datatype) -> str:
    kind = datatype.dtype or "no type"
    text = f"MPI.{name} is not defined for items of type {kind} ({datatype!r})"
    if kind == "bool":
        return f"{text}; use LAND, LOR or LXOR, or an array of integers"
    if name in arithmetic.LOCATIONS:
        return f"{text}; it takes pairs: FLOAT_INT, DOUBLE_INT, LONG_INT, INT_INT, SHORT_INT or LONG_DOUBLE_INT"
    if name in ("REPLACE", "NO_OP"):
        return f"MPI.{name} reduces no buffers"
    return text


# ------------------------------------------------------------------------------------- with Python objects


def _max(x: Any, y: Any) -> Any:
    return y if y > x else x


def _min(x: Any, y: Any) -> Any:
    return y if y < x else x


def _land(x: Any, y: Any) -> bool:
    return bool(x) & bool(y)


def _lor(x: Any, y: Any) -> bool:
    return bool(x) | bool(y)


def _lxor(x: Any, y: Any) -> bool:
    return bool(x) ^ bool(y)


def _maxloc(x: Any, y: Any) -> tuple[Any, Any]:
    return _located(x, y, operator.gt)


def _minloc(x: Any, y: Any) -> tuple[Any, Any]:
    return _located(x, y, operator.lt)


def _located(x: Any, y: Any, better: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """The better value and its place; of equal ones the lower place."""
    value, place = x
    other, elsewhere = y
    if better(value, other):
        return value, place
    if better(other, value) or elsewhere < place:
        return other, elsewhere
    return value, place


def _replace(x: Any, y: Any) -> Any:
    return y


def _no_op(x: Any, y: Any) -> Any:
    return x


OP_NULL: Final = Op._predefined("", None)
SUM: Final = Op._predefined("SUM", operator.add)
PROD: Final = Op._predefined("PROD", operator.mul)
MAX: Final = Op._predefined("MAX", _max)
MIN: Final = Op._predefined("MIN", _min)
LAND: Final = Op._predefined("LAND", _land)
LOR: Final = Op._predefined("LOR", _lor)
LXOR: Final = Op._predefined("LXOR", _lxor)
BAND: Final = Op._predefined("BAND", operator.and_)
BOR: Final = Op._predefined("BOR", operator.or_)
BXOR: Final = Op._predefined("BXOR", operator.xor)
MAXLOC: Final = Op._predefined("MAXLOC", _maxloc)
MINLOC: Final = Op._predefined("MINLOC", _minloc)
# The last and the first of the ranks; of these two the order is all there is.
REPLACE: Final = Op._predefined("REPLACE", _replace, commutative=False)
NO_OP: Final = Op._predefined("NO_OP", _no_op, commutative=False)
