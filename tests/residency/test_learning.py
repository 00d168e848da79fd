"""A new engine is asked for its arguments while it is installed; nothing depends on its answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from lemonade.catalog import Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.process import Endpoint
from lemonade.installer import KnownFlags
from lemonade.planning import plan_asking, plan_install
from lemonade.residency import Newcomers
from tests.installer.setting import MACHINE, mentioning
from tests.residency.installing import FAKE, LEARN, TRY, Setting

pytestmark = pytest.mark.slow

PATIENCE = 20.0
HELP = """
[help]
argv   = [{words}]
within = "{within}"
"""
SERVES = ("--port", "0")
"""What makes it serve instead of explaining itself, and so never end."""


def asking(setting: Setting, *words: str, within: str = "20s") -> None:
    setting.recipe += HELP.format(words=json.dumps(words), within=within)


async def known(setting: Setting, bundle: Bundle) -> frozenset[str] | None:
    """What a server that has just started knows of it, without asking."""
    catalog = Catalog.load((shipped(), setting.home / "catalog"))
    recipe = catalog.recipe(FAKE.recipe)
    assert recipe.help is not None
    plan = plan_install(
        setting.wanted("v1"), MACHINE, setting.bundles.present(setting.spec("v1")),
        setting.bundles.root,
    )  # fmt: skip
    facts = Newcomers(catalog, MACHINE, setting.environ).facts(
        plan, bundle, Endpoint("127.0.0.1", 1)
    )
    program, env = plan_asking(facts)
    flags = KnownFlags(setting.home / "flags")
    return await flags.of(bundle, program, env, recipe.help, ask=False)


async def test_it_is_asked_before_it_is_activated_and_never_again(setting: Setting) -> None:
    asking(setting, "--help")
    setting.publish("v1")
    bundle = await setting.install("v1")
    assert list(dict.fromkeys(setting.steps))[-4:] == ["check", TRY, LEARN, "fake:release"]
    assert setting.said == []
    kept = json.loads((bundle.root / "known-flags.json").read_text())
    assert {"--chunks", "--port"} <= set(kept["flags"])
    found = await known(setting, bundle)
    assert found is not None
    assert "--chunks" in found


async def test_one_that_cannot_explain_itself_is_installed_all_the_same(setting: Setting) -> None:
    asking(setting, "--version")
    setting.publish("v1")
    bundle = await setting.install("v1")
    assert setting.bundles.active(setting.wanted("v1")) == bundle
    (said,) = setting.said
    assert "fake:release v1 knows could not be learnt" in said
    assert "at the first load" in said
    assert await known(setting, bundle) is None


async def test_one_that_hangs_over_it_is_installed_all_the_same(setting: Setting) -> None:
    asking(setting, *SERVES, within="500ms")
    setting.publish("v1")
    bundle = await setting.install("v1")
    assert setting.bundles.active(setting.wanted("v1")) == bundle
    assert len(setting.said) == 1


async def test_cancelled_nothing_of_it_is_there(setting: Setting) -> None:
    asking(setting, *SERVES, within="60s")
    setting.publish("v1")
    setting.awaited = LEARN
    async with asyncio.TaskGroup() as group:
        task = group.create_task(setting.install("v1"))
        async with asyncio.timeout(PATIENCE):
            await setting.reached.wait()
            while not mentioning(setting.home):
                await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert setting.names() == []


async def test_what_does_not_run_here_is_not_asked(setting: Setting) -> None:
    asking(setting, "--help")
    setting.publish("v1")
    bundle = await setting.install("v1", force=True)
    assert LEARN not in setting.steps
    assert await known(setting, bundle) is None
