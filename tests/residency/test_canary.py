"""A new engine makes one token before it takes anybody's place; engines that cannot never do."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

from lemonade.core.errors import SetupFailed
from lemonade.core.events import ChildEnded, ChildSpawned
from tests.residency.installing import TRY, Setting, with_canary

pytestmark = pytest.mark.slow

PATIENCE = 20.0


async def test_it_is_asked_before_it_is_activated(setting: Setting) -> None:
    setting.publish("v1")
    bundle = await setting.install("v1")
    assert setting.bundles.active(setting.wanted("v1")) == bundle
    assert list(dict.fromkeys(setting.steps))[-3:] == ["check", TRY, "fake:release"]
    (spawned,) = (event for event in setting.events if isinstance(event, ChildSpawned))
    (ended,) = (event for event in setting.events if isinstance(event, ChildEnded))
    assert (spawned.child, spawned.name) == (ended.child, "canary")
    assert setting.names() == ["v1"]


@pytest.mark.parametrize(
    ("operation", "mode"), [("completion", "chat"), ("embeddings", "embeddings")]
)
async def test_other_questions(setting: Setting, operation: str, mode: str) -> None:
    setting.recipe = with_canary(setting.home, operation, mode)
    setting.publish("v1")
    await setting.install("v1")
    assert setting.spawned() == 1


@pytest.mark.parametrize(
    ("habits", "words"),
    [
        ("--signal-at-start 4", "was ended by SIGILL .*while starting.*error: loading the model"),
        ("--exit-at-start 3", "exited with status 3 .*error: giving up"),
        ("--no-such-flag", "exited with status 2 .*unrecognized arguments: --no-such-flag"),
        ("--never-ready", "was not ready after 0.5 s and was ended.*listening on"),
        ("--answers garbage", "its answer is not what was asked for: <html>"),
        ("--answers empty", "not one token in its answer"),
        ("--answers error", "it answered 500: .*no kernel image"),
        ("--answers crash", "the engine ended by SIGABRT .*no kernel image"),
        ("--answers never", "did not answer within 0.2 s"),
        ("--chunks 0", "its answer is not what was asked for"),
    ],
)
async def test_one_that_cannot_is_not_activated(setting: Setting, habits: str, words: str) -> None:
    setting.publish("v1")
    before = await setting.install("v1")
    setting.recipe = with_canary(
        setting.home,
        answers_within="200ms" if "answers never" in habits else "20s",
        ready_within="500ms" if "never-ready" in habits else "20s",
    )
    setting.publish("v2", *habits.split())
    with pytest.raises(SetupFailed) as caught:
        await setting.install("v2")
    error = caught.value
    assert "fake:release v2 was fetched and starts, but" in error.message
    assert re.search(words, error.message, re.DOTALL)
    assert "stays in use" in error.remedy
    assert error.facts["last_lines"]
    assert setting.names() == ["v1"]
    assert setting.bundles.active(setting.wanted("v1")) == before


async def test_what_a_processor_cannot_do_is_said(setting: Setting) -> None:
    setting.publish("v1", "--signal-at-start", str(int(signal.SIGILL)))
    with pytest.raises(SetupFailed, match="instructions that this processor does not") as caught:
        await setting.install("v1")
    assert caught.value.facts["signal"] == signal.SIGILL
    assert setting.names() == []


async def test_one_that_leaves_processes_is_cleaned_up_after(setting: Setting) -> None:
    setting.publish("v1", "--spawn-engine", "--engine-escapes", "--engine-ignores-term")
    await setting.install("v1")
    # The fixture asks whether anything is left.


async def test_cancelled_it_is_gone(setting: Setting) -> None:
    setting.publish("v1", "--never-ready", "--ignore-term")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(setting.install("v1"))
        async with asyncio.timeout(PATIENCE):
            await setting.reached.wait()
            while not list(setting.ledger.glob("*.json")):  # it is a child like any other
                await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert setting.names() == []
    assert [event for event in setting.events if isinstance(event, ChildEnded)]


async def test_recipes_without_one_are_not_asked(setting: Setting) -> None:
    setting.recipe = with_canary(setting.home).partition("[canary]")[0]
    setting.publish("v1", "--exit-at-start", "1")
    await setting.install("v1")
    assert setting.spawned() == 0
    assert TRY not in setting.steps


async def test_what_does_not_run_here_is_not_asked(setting: Setting) -> None:
    setting.publish("v1", "--exit-at-start", "1")
    await setting.install("v1", force=True)
    assert setting.spawned() == 0


async def test_a_model_that_did_not_come_with_it(setting: Setting) -> None:
    setting.recipe = with_canary(setting.home).replace("tiny-lemon-Q8_0", "huge")
    setting.publish("v1")
    with pytest.raises(SetupFailed, match=r"No model file 'huge\.gguf'"):
        await setting.install("v1")
    assert setting.spawned() == 0
