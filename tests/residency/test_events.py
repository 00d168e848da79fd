"""Every turn in the life of a model and its engine is an event, and every event is documented."""

from __future__ import annotations

import pytest

from lemonade.core import events
from lemonade.core.errors import ExitedWhileStarting
from lemonade.core.events import Event
from lemonade.residency import CrashPolicy, LoadRequest
from tests.residency.stage import Scene, scene, until
from tests.serving import ROOT


def names(one: Scene) -> list[str]:
    return [type(event).__name__ for event in one.events]


async def test_a_model_that_comes_and_goes() -> None:
    async with scene() as one:
        await one.pool.load("one", LoadRequest())
        await one.pool.unload("one")
        assert names(one) == ["LoadBegan", "ModelLoaded", "ModelRetiring", "ModelUnloaded"]


async def test_a_model_that_fails_until_somebody_insists() -> None:
    async with scene(policy=CrashPolicy(failures=2)) as one:
        one.stage.broken.add("one")
        for _ in range(2):
            with pytest.raises(ExitedWhileStarting):
                await one.pool.load("one", LoadRequest())
        assert names(one) == [
            "LoadBegan", "IncidentRecorded", "LoadFailed",
            "LoadBegan", "IncidentRecorded", "CircuitOpened", "LoadFailed",
        ]  # fmt: skip
        one.stage.broken.clear()
        await one.pool.load("one", LoadRequest(), force=True)
        assert names(one)[7:] == ["CircuitReset", "LoadBegan", "ModelLoaded"]


async def test_a_model_whose_engine_crashes() -> None:
    async with scene() as one:
        await one.pool.load("one", LoadRequest())
        one.stage.engine("one").crash()
        await until(lambda: len(one.events) == 4)
        assert names(one)[2:] == ["IncidentRecorded", "ModelUnloaded"]


def test_every_event_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "supervision.md").read_text()
    kinds = [
        name
        for name, kind in vars(events).items()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    ]
    assert len(kinds) > 15
    assert [name for name in kinds if f"`{name}`" not in page] == []
