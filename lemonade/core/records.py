"""`dataclass` as the standard library has it, made in a third of the time.

The standard library writes and compiles six functions for every frozen class; for the two hundred
of this house that was a fifth of the time `lemonade serve` took to start. All but `__init__` are
the same for every class, so here they are written once. What a class of ours can do is what the
other can do: fields, defaults, `replace`, `copy`, `pickle`, `match`, and being frozen. What nobody
here needs (`InitVar`, `weakref_slot`, `unsafe_hash`) is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

__all__ = ["dataclass"]

C = TypeVar("C")

_KEY: Final = "__dataclass_key__"
"""The attribute of a class that makes the tuple two objects are compared by."""


def _quick(
    *,
    frozen: bool = False,
    slots: bool = False,
    eq: bool = True,
    order: bool = False,
    kw_only: bool = False,
) -> Callable[[type[C]], type[C]]:
    """What `dataclasses.dataclass` does with these words."""

    def make(written: type[C]) -> type[C]:
        own = written.__dict__
        if not written.__doc__:  # the other would work out the signature, to have a docstring
            written.__doc__ = written.__name__
        cls = dataclasses.dataclass(
            init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
        )(written)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # it is one now
        put = _put_where_missing(cls, own)
        put("__init__", _init(cls, fields, past_setattr=frozen))
        put("__repr__", _repr)
        if eq:
            setattr(cls, _KEY, _key(tuple(field.name for field in fields if field.compare)))
            if own.get("__hash__") is None:
                cls.__hash__ = _hash if frozen else None  # type: ignore[assignment]  # as Python says it
            put("__eq__", _eq)
        if order:
            for name, function in _ORDER.items():
                put(name, function)
        if frozen:
            put("__setattr__", _refuse_to_set)
            put("__delattr__", _refuse_to_delete)
            put("__getstate__", _get_state)
            put("__setstate__", _set_state)
        return cls

    return make


if TYPE_CHECKING:
    from dataclasses import dataclass  # what a type checker knows best
else:
    dataclass = _quick


def _put_where_missing(cls: type, own: Any) -> Callable[[str, object], None]:  # noqa: ANN401 - a class's dictionary
    def put(name: str, function: object) -> None:
        if name not in own:
            setattr(cls, name, function)

    return put


def _init(cls: type, fields: tuple[Field[Any], ...], *, past_setattr: bool) -> Callable[..., None]:
    """The one function that has to be written for each class."""
    known: dict[str, Any] = {"_absent": MISSING, "_set": object.__setattr__}
    positional, by_name, body = ["self"], list[str](), list[str]()
    for field in fields:
        name, value = field.name, field.name
        if field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            word = f"{name}=_default_{name}"
        elif field.default_factory is not MISSING:
            known[f"_make_{name}"] = field.default_factory
            word = f"{name}=_absent"
            value = f"_make_{name}() if {name} is _absent else {name}"
        else:
            word = name
        if field.init:
            (by_name if field.kw_only else positional).append(word)
        elif field.default_factory is not MISSING:
            value = f"_make_{name}()"
        elif field.default is not MISSING:
            value = f"_default_{name}"
        else:
            continue  # somebody else will set it
        body.append(
            _assignment(cls, name, value, known) if past_setattr else f"self.{name}={value}"
        )
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    words = ",".join([*positional, *(["*", *by_name] if by_name else [])])
    lines = "\n ".join(body or ["pass"])
    exec(f"def __init__({words}):\n {lines}", known)  # noqa: S102 - made of names of fields
    function: Callable[..., None] = known["__init__"]
    function.__qualname__ = f"{cls.__qualname__}.__init__"
    function.__module__ = cls.__module__
    return function


def _assignment(cls: type, name: str, value: str, known: dict[str, Any]) -> str:
    """A slot is set through its descriptor: quicker than by name, and past the refusal."""
    slot: Any = getattr(cls, name, None)
    if not isinstance(slot, MemberDescriptorType):
        return f"_set(self,'{name}',{value})"
    known[f"_slot_{name}"] = slot.__set__
    return f"_slot_{name}(self,{value})"


def _key(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda one: tuple(getattr(one, name) for name in names)


@recursive_repr()
def _repr(self: Any) -> str:  # noqa: ANN401 - of any class
    shown = (f for f in dataclasses.fields(self) if f.repr)
    values = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in shown)
    return f"{type(self).__qualname__}({values})"


def _eq(self: object, other: object) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented  # type: ignore[no-any-return]  # Python asks the other one then
    key = getattr(type(self), _KEY)
    return bool(key(self) == key(other))


def _hash(self: object) -> int:
    return hash(getattr(type(self), _KEY)(self))


def _lt(self: object, other: object) -> bool:
    return _compared(self, other, tuple.__lt__)


def _le(self: object, other: object) -> bool:
    return _compared(self, other, tuple.__le__)


def _gt(self: object, other: object) -> bool:
    return _compared(self, other, tuple.__gt__)


def _ge(self: object, other: object) -> bool:
    return _compared(self, other, tuple.__ge__)


def _compared(self: object, other: object, how: Callable[[Any, Any], bool]) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented  # type: ignore[no-any-return]  # Python asks the other one then
    key = getattr(type(self), _KEY)
    return how(key(self), key(other))


_ORDER: Final = {"__lt__": _lt, "__le__": _le, "__gt__": _gt, "__ge__": _ge}


def _is_ours(self: object, name: str) -> bool:
    """Whether the class itself is frozen; a class made from it may have attributes of its own."""
    cls = type(self)
    return "__dataclass_fields__" in cls.__dict__ or name in cls.__dataclass_fields__  # type: ignore[attr-defined]  # it has them


def _refuse_to_set(self: object, name: str, value: object) -> None:
    if _is_ours(self, name):
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _refuse_to_delete(self: object, name: str) -> None:
    if _is_ours(self, name):
        raise FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _get_state(self: Any) -> list[object]:  # noqa: ANN401 - of any class
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: list[object]) -> None:  # noqa: ANN401 - of any class
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
