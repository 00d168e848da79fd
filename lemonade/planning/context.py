"""How long a context an engine is asked for, and how many bytes its cache takes.

What somebody chose is passed on or refused with numbers, never cut down silently; only a context
size that the configuration has for all models gives way, with a notice. Where nobody chose and the
recipe says how to plan, it is as long as the model and the memory allow. Otherwise the engine
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lemonade.core.errors import BadOption
from lemonade.core.records import dataclass
from lemonade.core.units import render_size
from lemonade.planning.transformers_config import ModelShape

_BLOCK: Final = 128
"""Engines keep their cache in blocks of 16 to 128 tokens; what is planned fills whole ones."""

_ALL_MODELS: Final = "config"
"""The layer whose context size nobody chose for this model."""


@dataclass(frozen=True, slots=True)
class ContextWish:
    """What is known when a context is planned.

    Attributes:
        chosen: tokens somebody chose, if anybody did.
        origin: the layer that did.
        shape: the model's; `None` if it could not be read.
        budget_bytes: what the cache may take; `None` if nobody knows.
        exact: whether that is a number somebody gave, and no estimate of ours.
        budget_from: the same as half a sentence.
        more: what to do for a larger cache, as a sentence.
        number_bytes: of a number in the cache.
        batched: tokens computed at once.
        limit: what the engine itself said would fit, when it was tried before.
        stretched: whether the arguments say that the model can do more than it was trained for.
    """

    chosen: int | None
    origin: str = "default"
    shape: ModelShape | None = None
    budget_bytes: int | None = None
    exact: bool = False
    budget_from: str = ""
    more: str = ""
    number_bytes: int = 2
    batched: int = 0
    limit: int | None = None
    stretched: bool = False


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What is decided.

    Attributes:
        tokens: what the engine is asked for; `None` leaves it to the engine.
        because: why, as a sentence.
        longest: what the model was trained for, if it says.
        cache_bytes: what a context of that length takes; `None` if nobody knows.
        budget_bytes: what the cache may take; `None` if nobody knows.
        token_bytes: what one more token takes, while no window is full.
        notices: what whoever chose otherwise should know.
    """

    tokens: int | None
    because: str
    longest: int | None = None
    cache_bytes: int | None = None
    budget_bytes: int | None = None
    token_bytes: int | None = None
    notices: tuple[str, ...] = ()


def chosen_context(options: Mapping[str, object]) -> int | None:
    """The context in tokens that was chosen, or `None` if that is left to the engine.

    -1 and 0 both leave it: the first is Lemonade's word for it, the second llama.cpp's.
    """
    size = options.get("ctx_size")
    return size if isinstance(size, int) and size > 0 else None


def plan_context(wish: ContextWish) -> ContextPlan:
    """Decide.

    Raises:
        BadOption: what was chosen is longer than the model can do, or than a cache of a given size
            can hold; the message has the numbers.
    """
    longest = None if wish.stretched or wish.shape is None else wish.shape.longest
    if wish.limit is not None:
        because = f"The engine said that no more than {wish.limit} tokens fit."
        return _planned(wish, wish.limit, because, ())
    if wish.chosen is None:
        return _automatic(wish, longest)
    tokens, notices = wish.chosen, []
    if longest is not None and tokens > longest:
        if wish.origin != _ALL_MODELS:
            raise BadOption(
                f"A context of {tokens} tokens was asked for, and the model was made for at most "
                f"{longest}.",
                remedy=f"Give ctx_size {longest} or less, or -1 for as much as fits.",
                facts={"ctx_size": tokens, "longest": longest, "origin": wish.origin},
            )
        notices.append(
            f"The configuration's ctx_size of {tokens} is more than the model was made for: "
            f"it gets {longest}."
        )
        tokens = longest
    fitting = _fitting(wish)
    if fitting is not None and tokens > fitting:
        tokens, notice = _too_large(wish, tokens, fitting)
        notices.append(notice)
    because = f"{wish.chosen} tokens were chosen."
    return _planned(wish, tokens, because, tuple(notices))


def _automatic(wish: ContextWish, longest: int | None) -> ContextPlan:
    fitting = _fitting(wish)
    if fitting is None and longest is None:
        return _planned(wish, None, "Nobody chose one, and the engine decides.", ())
    if fitting is None or (longest is not None and fitting >= longest):
        return _planned(wish, longest, "It is what the model was made for.", ())
    if fitting < _BLOCK:
        # The engine's own words say more than an estimate that leaves nothing.
        return _planned(wish, longest, "No estimate of the memory leaves any for it.", ())
    rounded = fitting // _BLOCK * _BLOCK
    size = render_size(wish.budget_bytes or 0)
    because = f"It is what {size} hold ({wish.budget_from})."
    if longest is not None:
        because = f"{because[:-1]}; the model was made for {longest}."
    return _planned(wish, rounded, because, ())


def _too_large(wish: ContextWish, tokens: int, fitting: int) -> tuple[int, str]:
    """What is used instead, and the notice.

    Raises:
        BadOption: it was chosen for this model, and the size of the cache is certain.
    """
    assert wish.shape is not None
    needed = render_size(wish.shape.cache_bytes(tokens, wish.number_bytes, wish.batched))
    have = render_size(wish.budget_bytes or 0)
    numbers = (
        f"A context of {tokens} tokens takes {needed} of cache, and there are {have} "
        f"({wish.budget_from}), which hold {fitting} tokens."
    )
    if wish.origin == _ALL_MODELS and fitting >= _BLOCK:
        rounded = fitting // _BLOCK * _BLOCK
        return rounded, f"{numbers} The configuration's ctx_size gives way: it gets {rounded}."
    if wish.exact:
        raise BadOption(
            numbers,
            remedy=f"Give ctx_size {fitting} or less, or -1 for as much as fits. {wish.more}",
            facts={
                "ctx_size": tokens,
                "fitting": fitting,
                "budget_bytes": wish.budget_bytes,
                "origin": wish.origin,
            },
        )
    return tokens, f"{numbers} That is an estimate, so it is tried."


def _fitting(wish: ContextWish) -> int | None:
    """The longest context that the budget holds; `None` if that is no limit, or unknown."""
    if wish.shape is None or wish.budget_bytes is None or not wish.shape.groups:
        return None
    return wish.shape.fitting(wish.budget_bytes, wish.number_bytes, wish.batched)


def _planned(
    wish: ContextWish, tokens: int | None, because: str, notices: tuple[str, ...]
) -> ContextPlan:
    shape = wish.shape
    return ContextPlan(
        tokens=tokens,
        because=because,
        longest=shape.longest if shape else None,
        cache_bytes=(
            shape.cache_bytes(tokens, wish.number_bytes, wish.batched)
            if shape is not None and tokens is not None
            else None
        ),
        budget_bytes=wish.budget_bytes,
        token_bytes=shape.numbers_per_token * wish.number_bytes if shape else None,
        notices=notices,
    )
