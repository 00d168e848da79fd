"""Our `dataclass` makes what the standard library's makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, replace
from typing import Any

import pytest

from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Two numbers and what belongs to them."""

    x: int
    y: int = 2
    names: list[str] = field(default_factory=list, compare=False)
    secret: str = field(default="hidden", repr=False)


@dataclass(frozen=True, slots=True)
class Deeper(Point):
    """A third number."""

    z: int = field(default=3, kw_only=True)


@dataclass(slots=True)
class Count:
    number: int = 0
    seen: set[int] = field(default_factory=set, init=False)
    fixed: str = field(default="fixed", init=False)

    def __post_init__(self) -> None:
        self.seen.add(self.number)


@dataclass(frozen=True, slots=True, order=True)
class Version:
    major: int
    minor: int = 0
    label: str = field(default="", compare=False)


@dataclass(frozen=True)
class WithDictionary:
    name: str


@dataclass(slots=True, eq=False)
class Itself:
    name: str


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True)
class Spoken:
    word: str

    def __repr__(self) -> str:
        return "spoken"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spoken)

    def __hash__(self) -> int:
        return 7


def twin(ours: type, **how: bool) -> Any:
    """The class as the standard library makes it, from the same words."""
    body = {
        "__annotations__": {f.name: f.type for f in dataclasses.fields(ours)},
        "__qualname__": ours.__qualname__,
    }
    for one in dataclasses.fields(ours):
        given = {key: getattr(one, key) for key in ("init", "repr", "hash", "compare", "kw_only")}
        for key in ("default", "default_factory"):
            if getattr(one, key) is not dataclasses.MISSING:
                given[key] = getattr(one, key)
        body[one.name] = field(**given)
    if "__post_init__" in ours.__dict__:
        body["__post_init__"] = ours.__dict__["__post_init__"]
    return dataclasses.dataclass(**how)(type(ours.__name__, (), body))  # type: ignore[call-overload]


MADE: list[tuple[type, dict[str, bool], Callable[[Any], list[Any]]]] = [
    (Point, {"frozen": True, "slots": True}, lambda c: [c(1), c(1, 3), c(x=1, names=["a"])]),
    (Deeper, {"frozen": True, "slots": True}, lambda c: [c(1), c(1, z=4), c(1, z=3)]),
    (Count, {"slots": True}, lambda c: [c(), c(1), c(number=1)]),
    (Version, {"frozen": True, "slots": True, "order": True}, lambda c: [c(1), c(1, 0, "b")]),
    (WithDictionary, {"frozen": True}, lambda c: [c("a"), c("a"), c(name="b")]),
    (Itself, {"slots": True, "eq": False}, lambda c: [c("a"), c("a")]),
    (Nothing, {"frozen": True, "slots": True}, lambda c: [c(), c()]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "how", "some"), MADE, ids=lambda value: getattr(value, "__name__", "")
)
def test_it_is_what_the_standard_library_makes(
    ours: type, how: dict[str, bool], some: Callable[[Any], list[Any]]
) -> None:
    theirs = twin(ours, **how)
    mine, others = some(ours), some(theirs)
    assert [repr(one) for one in mine] == [repr(one) for one in others]
    assert [[a == b for a in mine] for b in mine] == [[a == b for a in others] for b in others]
    assert ours.__match_args__ == theirs.__match_args__  # type: ignore[attr-defined]
    assert hasattr(mine[0], "__dict__") == hasattr(others[0], "__dict__")
    if how.get("frozen"):
        assert [hash(one) for one in mine] == [hash(one) for one in others]
    elif how.get("eq", True):
        with pytest.raises(TypeError, match="unhashable"):
            hash(mine[0])
    if how.get("order"):
        assert [[a < b for a in mine] for b in mine] == [[a < b for a in others] for b in others]
        assert [[a >= b for a in mine] for b in mine] == [[a >= b for a in others] for b in others]
        with pytest.raises(TypeError):
            _ = mine[0] < others[0]
    with pytest.raises(TypeError):
        ours(1, 2, 3, 4, 5, 6)
    with pytest.raises(TypeError):
        ours(nobody="knows")


def test_frozen_is_frozen() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'y'"):
        del point.y
    assert point == Point(1, 2)


def test_a_class_made_of_a_frozen_one_may_have_more() -> None:
    class Named(WithDictionary):
        pass

    named = Named("a")
    named.more = 1  # type: ignore[attr-defined]
    assert named.more == 1  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        named.name = "b"  # type: ignore[misc]


def test_copies() -> None:
    deeper = Deeper(1, names=["a"], z=9)
    assert replace(deeper, x=5) == Deeper(5, names=["a"], z=9)
    assert dataclasses.asdict(deeper) == {
        "x": 1,
        "y": 2,
        "names": ["a"],
        "secret": "hidden",
        "z": 9,
    }
    for other in (copy.copy(deeper), copy.deepcopy(deeper), pickle.loads(pickle.dumps(deeper))):
        assert other == deeper
        assert other.names == ["a"]
    assert copy.deepcopy(deeper).names is not deeper.names
    assert Point(1).names is not Point(1).names


def test_what_the_class_says_itself_stays() -> None:
    spoken = Spoken("a")
    assert (repr(spoken), hash(spoken)) == ("spoken", 7)
    assert spoken == Spoken("b")
    with pytest.raises(FrozenInstanceError):
        spoken.word = "b"  # type: ignore[misc]


def test_it_can_be_matched_and_shown_within_itself() -> None:
    match Version(1, 2):
        case Version(major, minor):
            assert (major, minor) == (1, 2)
    around = Point(1)
    around.names.append(around)  # type: ignore[arg-type]
    assert repr(around) == "Point(x=1, y=2, names=[...])"
