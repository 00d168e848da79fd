"""Many clients doing anything in any order: whatever they do, some things are always true.

The orders come from seeds, so that one that fails can be run again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from lemonade.core.events import ModelUnloaded
from lemonade.residency import LoadRequest, Phase, Resident
from tests.residency.stage import NAMES, Scene, outcome, scene, turns, until

Deed = Callable[[Scene, random.Random, str], Awaitable[None]]

SEEDS = (*range(120), 1101)
"""The last one once had three models take each other's places for ever, none being used."""

CLIENTS = 6
DEEDS = 12


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_done_in_whatever_order(seed: int) -> None:
    dice = random.Random(seed)
    async with scene(linger=0.0) as here:
        here.stage.limit = dice.choice((1, 1, 2, -1))
        here.stage.beside = dice.random() < 0.5
        here.stage.turns_to_end = dice.randint(0, 6)
        here.stage.broken = set(dice.sample(NAMES, dice.choice((0, 0, 1))))
        watch = Watch(here)
        async with asyncio.TaskGroup() as clients:
            watching = clients.create_task(watch.look())
            deeds = [
                clients.create_task(client(here, random.Random(dice.random())))
                for _ in range(CLIENTS)
            ]
            for deed in deeds:
                await deed
            # Nobody is left waiting: every load that is still on its way ends by itself.
            await until(lambda: all(r.phase is Phase.SERVING for r in here.pool.residents()))
            watching.cancel()
        assert all(r.promised_to is None for r in here.pool.residents())
        if dice.random() < 0.5:
            await here.pool.unload_where(lambda _: True, "all")
            assert here.pool.residents() == ()


class Watch:
    """Looks at the pool after every turn of the loop."""

    def __init__(self, here: Scene) -> None:
        self._here = here

    async def look(self) -> None:
        while True:
            self._check(self._here.pool.residents())
            await asyncio.sleep(0)

    def _check(self, residents: tuple[Resident, ...]) -> None:
        for phase in (Phase.SERVING, Phase.LOADING):
            keys = Counter(r.key for r in residents if r.phase is phase)
            assert not keys or max(keys.values()) == 1
        limit = self._here.stage.limit
        if limit == -1:
            return
        # Who is to be replaced gives its slot to the one that replaces it.
        replaced = {r.key for r in residents if r.claims and r.phase is Phase.LOADING}
        slots = Counter(
            r.spec.type
            for r in residents
            if (r.phase is Phase.LOADING and r.claims and r.step != "stopping")
            or (r.phase is Phase.SERVING and r.promised_to is None and r.key not in replaced)
        )
        assert not slots or max(slots.values()) <= limit, residents


async def client(here: Scene, dice: random.Random) -> None:
    """Somebody who does a dozen things, and sometimes leaves in the middle of one."""
    for _ in range(DEEDS):
        name = dice.choice(NAMES)
        deed = dice.choices(
            (use, load, unload, pin, crash, unload_all), weights=(8, 6, 3, 2, 3, 1)
        )[0]
        if dice.random() < 0.25:
            async with asyncio.TaskGroup() as group:
                doing = group.create_task(attempt(deed, here, dice, name))
                await turns(dice.randint(0, 8))
                doing.cancel()
        else:
            await attempt(deed, here, dice, name)
        await turns(dice.randint(0, 3))


async def attempt(deed: Deed, here: Scene, dice: random.Random, name: str) -> None:
    await outcome(deed(here, dice, name))


async def use(here: Scene, dice: random.Random, name: str) -> None:
    async with await here.pool.lease(name) as lease:
        assert lease.resident.served_name == name
        assert not lease.instance.ending
        await turns(dice.randint(0, 6))


async def load(here: Scene, dice: random.Random, name: str) -> None:
    options = {"ctx_size": dice.choice((0, 0, 1, 2))}
    pinned = dice.choice((None, None, None, True, False))
    await here.pool.load(name, LoadRequest(options, pinned), keep=dice.random() < 0.2)


async def unload(here: Scene, _: random.Random, name: str) -> None:
    await here.pool.unload(name)


async def unload_all(here: Scene, _: random.Random, name: str) -> None:
    await here.pool.unload_where(lambda r: r.served_name == name, "asked for")


async def pin(here: Scene, dice: random.Random, name: str) -> None:
    here.pool.pin(name, pinned=dice.random() < 0.3)


async def crash(here: Scene, dice: random.Random, name: str) -> None:
    for engine in here.stage.alive(name):
        slowly = dice.random() < 0.5
        engine.crash(slowly=slowly)
        if slowly:
            try:
                await turns(dice.randint(0, 8))
            finally:
                engine.swept()


async def test_nobody_who_is_pinned_is_evicted() -> None:
    for seed in SEEDS:
        dice = random.Random(seed)
        async with scene(linger=0.0) as here:
            here.stage.limit = 2
            here.stage.beside = dice.random() < 0.5
            await here.pool.load("one", LoadRequest(pinned=True))
            async with asyncio.TaskGroup() as clients:
                for _ in range(CLIENTS):
                    clients.create_task(loads_others(here, random.Random(dice.random())))
            assert here.pool.find("one") is not None
            ends = [e.model for e in here.events if isinstance(e, ModelUnloaded)]
            assert "one" not in ends


async def loads_others(here: Scene, dice: random.Random) -> None:
    for _ in range(DEEDS):
        name = dice.choice(("two", "three"))
        await outcome(dice.choice((use, load, unload))(here, dice, name))
