"""The adapters of a running engine: which it has, by what name, and telling it of another.

An engine that is started with its adapters knows them by number, in the order it was given them;
one that is told while it runs knows them by a name of ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from lemonade.catalog import Adapter, RecipeSpec
from lemonade.checkpoints import adapter_stamp
from lemonade.core.errors import AdapterRefused, UpstreamError, UpstreamTimeout
from lemonade.core.records import dataclass
from lemonade.residency.placement import Instance
from lemonade.upstream import UpstreamRequest

log = logging.getLogger(__name__)

TELL_SECONDS: Final = 300.0
"""How long an engine may take to read an adapter."""

_QUOTED: Final = 500
"""Characters of what it says about one it does not take."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An adapter as one engine has it.

    Attributes:
        handle: its number or name there.
        stamp: of its files when the engine read them.
        problem: why the engine has it not, in spite of all; empty if it has.
    """

    adapter: Adapter
    handle: int | str
    stamp: tuple[int, int] | None
    problem: str = ""


def expected(
    recipe: RecipeSpec, served_name: str, adapters: Sequence[Adapter]
) -> dict[str, Fitted]:
    """What an engine will have that is started with these."""
    by_number = recipe.adapters is not None and recipe.adapters.scales
    return {
        one.name: Fitted(
            one, number if by_number else f"{served_name}:{one.name}", adapter_stamp(one.path)
        )
        for number, one in enumerate(adapters)
    }


def covers(fitted: Mapping[str, Fitted], wanted: Sequence[Adapter], *, exact: bool) -> bool:
    """Whether an engine with those has these, too. What it has beyond them disturbs nobody.

    Args:
        fitted: what it has.
        wanted: what it should have.
        exact: whether the files must be as they are now.
    """
    for one in wanted:
        there = fitted.get(one.name)
        if there is None or there.adapter.path != one.path:
            return False
        if exact and (there.problem or there.stamp != adapter_stamp(one.path)):
            return False
    return True


async def equip(
    instance: Instance, recipe: RecipeSpec, fitted: dict[str, Fitted], *, exact: bool
) -> None:
    """Tell an engine that has just started what it can only be told now.

    One that it does not take is noted in `fitted`: the model can be used without it.

    Raises:
        UpstreamError: it does not take one, and all are wanted (`exact`).
    """
    if recipe.adapters is None or not recipe.adapters.at_run_time:
        return
    for name, one in tuple(fitted.items()):
        try:
            await tell(instance, recipe, one)
        except UpstreamError as error:
            if exact:
                raise
            log.error("%s: its adapter %s is left out: %s", instance.spec.name, name, error)
            fitted[name] = replace(one, problem=error.message)


async def tell(
    instance: Instance, recipe: RecipeSpec, fitted: Fitted, *, forget: bool = False
) -> None:
    """Have a running engine read an adapter, or forget it.

    Raises:
        AdapterRefused: it does not; the message quotes it.
        UpstreamError: it did not answer.
    """
    spec = recipe.adapters
    assert spec is not None
    words = {"name": str(fitted.handle), "path": str(fitted.adapter.path)}
    template = spec.unload_body if forget else spec.load_body
    body = {key: _filled(value, words) for key, value in template.items()}
    request = UpstreamRequest(
        method="POST",
        path=spec.unload if forget else spec.load,
        body=json.dumps(body).encode(),
    )
    try:
        async with (
            asyncio.timeout(TELL_SECONDS),
            await instance.upstream.send(request) as response,
        ):
            status, answer = response.status, await response.read()
    except TimeoutError as error:
        raise UpstreamTimeout(
            f"The engine did not answer about the adapter {fitted.adapter.name} within "
            f"{TELL_SECONDS:g} seconds."
        ) from error
    if not 200 <= status < 300:
        did = "forget" if forget else "take"
        raise AdapterRefused(
            f"{recipe.title} does not {did} the adapter {fitted.adapter.name}: {_said(answer)}",
            remedy="" if forget else "Give one that was made for this model.",
            facts={"status": status, "adapter": fitted.adapter.name},
        )


def free_handle(served_name: str, name: str, taken: Collection[object]) -> str:
    """A name for an adapter that the engine does not use for another one."""
    handle, number = f"{served_name}:{name}", 1
    while handle in taken:
        number += 1
        handle = f"{served_name}:{name}.{number}"
    return handle


def _filled(template: str, words: Mapping[str, str]) -> str:
    if template in ("{name}", "{path}"):
        return words[template[1:-1]]
    return template.replace("{name}", words["name"]).replace("{path}", words["path"])


def _said(answer: bytes) -> str:
    """The engine's own sentence, out of whatever it is wrapped in."""
    text = answer.decode("utf-8", "replace")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    while isinstance(value, Mapping):
        value = value.get("error") or value.get("message") or value.get("detail")
    said = value if isinstance(value, str) and value else text
    return said.strip()[:_QUOTED] or "it does not say why."
