"""What a load would do, and who decided it. Nothing is started, fetched or evicted.

Of a model that is not here the hub is asked for what would be planned with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from lemonade.config import Settings
from lemonade.core.errors import LemonadeError
from lemonade.core.process import REDACTED
from lemonade.core.records import dataclass
from lemonade.planning import Argument, CommandPlan, EvictionPlan
from lemonade.planning.checkpoint_facts import CheckpointFacts
from lemonade.residency.beside import held_beside
from lemonade.residency.circuit import CrashPolicy
from lemonade.residency.loading import Loader, LoadPlan
from lemonade.residency.policies import crash_policy, hang_policy, patience_with
from lemonade.residency.pool import Pool
from lemonade.residency.wellness import Patience
from lemonade.residency.wishes import LoadRequest

_SECRET: Final = re.compile(r"(^|-)(key|token|password|secret)\Z")


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend that could have been taken.

    Attributes:
        because: why it is taken, or why not.
    """

    backend: str
    title: str
    chosen: bool
    supported: bool
    installed: bool
    because: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A load that was planned and not carried out.

    Attributes:
        checkpoint: what is known of the model's files, and from where.
        version: of the engine that is here; empty if it would have to be installed.
        missing: what would have to be fetched first, as sentences.
        leaves: models that would have to leave.
        room: why they would, or what else would happen to make room.
        crash: what would be done if its engine failed.
        hang: how long its engine could do nothing.
    """

    plan: LoadPlan
    command: CommandPlan
    checkpoint: CheckpointFacts
    choices: tuple[Choice, ...]
    version: str
    missing: tuple[str, ...]
    notices: tuple[str, ...]
    leaves: tuple[str, ...]
    room: str
    crash: CrashPolicy
    hang: Patience


async def explain(
    loader: Loader, pool: Pool, name: str, request: LoadRequest, settings: Settings
) -> Explanation:
    """Plan the load of a model.

    Raises:
        LemonadeError: the load would be refused, for the same reason.
    """
    plan = pool.plan(name, request)
    leaving, room = _room(pool, plan)
    held = await held_beside(plan, pool.residents(), leaving)
    seen = await loader.preview(plan, held)
    bundle = seen.bundle
    notices = (*seen.command.notices, *await loader.vet(plan, bundle, ask=False))
    return Explanation(
        plan=plan,
        command=seen.command,
        checkpoint=seen.checkpoint,
        choices=tuple(_choices(loader, plan)),
        version=bundle.version if bundle is not None else "",
        missing=seen.missing,
        notices=notices,
        leaves=tuple(pool.name_of(key) for key in leaving),
        room=room,
        crash=crash_policy(settings),
        hang=_patience(plan, settings),
    )


def _patience(plan: LoadPlan, settings: Settings) -> Patience:
    values = plan.options.values
    chosen = values.get("stall_timeout")
    stall = float(chosen) if isinstance(chosen, int | float) and chosen > 0 else 0.0
    return patience_with(
        hang_policy(settings),
        plan.recipe,
        values,
        stall_timeout=stall or plan.recipe.upstream.stall_timeout,
    )


def shown(argument: Argument) -> tuple[str, ...]:
    """An argument's words for people: the value of a key or a token is not shown."""
    if argument.values and _SECRET.search(argument.flag):
        return (argument.flag, REDACTED)
    return argument.words()


def _choices(loader: Loader, plan: LoadPlan) -> Iterator[Choice]:
    for spec, verdict, installed, why_not in loader.judged(plan):
        chosen = spec.id == plan.backend.id
        because = why_not or "It runs here, and comes after the one that is taken."
        if chosen:
            option = plan.recipe.backend_option or ""
            named = plan.options.origins.get(option, "default") != "default"
            because = "It was named." if named else _best(installed=installed)
        yield Choice(spec.id, spec.title, chosen, verdict.supported, installed, because)


def _best(*, installed: bool) -> str:
    if installed:
        return "It is the first, by preference, that runs here and is installed."
    return "It is the first, by preference, that runs here; none is installed."


def _room(pool: Pool, plan: LoadPlan) -> tuple[tuple[str, ...], str]:
    """Who would leave, by key, and why."""
    try:
        forecast: EvictionPlan | str = pool.forecast(plan)
    except LemonadeError as error:
        return (), f"It would be refused: {error}"
    if isinstance(forecast, str):
        return (), forecast
    return forecast.stop, forecast.reason or "There is room for it."


def words_of(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """All their words as they are shown."""
    return tuple(word for argument in arguments for word in shown(argument))
