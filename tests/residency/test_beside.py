"""What other models hold of devices counts where a context is planned, and only of who stays."""

from __future__ import annotations

import pytest

from lemonade.core.ids import BackendId
from lemonade.core.process import DeviceHold
from lemonade.planning import EffectiveOptions
from lemonade.residency import LoadPlan, LoadRequest, Phase, Resident
from lemonade.residency.beside import held_beside
from tests.residency.stage import CATALOG, Engine, Registry, Stage

GPU = "0000:c3:00.0"
REGISTRY = Registry()


class Holding(Engine):
    """One that holds as many bytes as its process has a number."""

    async def device_memory(self) -> tuple[DeviceHold, ...]:
        return (DeviceHold(self.pid, GPU, self.pid),)


def resident(stage: Stage, name: str, phase: Phase = Phase.SERVING) -> Resident:
    engine = Holding(stage, name, {})
    stage.engines.append(engine)
    recipe = CATALOG.recipe("llamacpp")
    one = Resident(REGISTRY.resolve(name), name, recipe, request=LoadRequest(), phase=phase)
    one.instance = engine
    return one


def wanted(backend: str = "vllm:rocm", name: str = "three") -> LoadPlan:
    found = CATALOG.backend(BackendId.parse(backend))
    recipe = CATALOG.recipe(found.backend_id.recipe)
    return LoadPlan(REGISTRY.resolve(name), name, recipe, found, EffectiveOptions({}, {}))


async def test_who_stays_counts() -> None:
    stage = Stage()
    here = [
        resident(stage, "one"),
        resident(stage, "two"),
        resident(stage, "vectors", Phase.LOADING),
        resident(stage, "more-vectors", Phase.DRAINING),
        resident(stage, "three"),
    ]
    held = await held_beside(wanted(), here, leaving=(here[1].key,))
    assert [one.pid for one in held] == [1, 3], "not who makes room, leaves, or is replaced"
    here[0].instance.crash()  # type: ignore[union-attr]
    assert [one.pid for one in await held_beside(wanted(), here)] == [2, 3]


@pytest.mark.parametrize("backend", ["vllm:cpu", "llamacpp:wheel"])
async def test_nobody_is_looked_at_where_it_makes_no_difference(backend: str) -> None:
    assert await held_beside(wanted(backend), [resident(Stage(), "one")]) == ()
