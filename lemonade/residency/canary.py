"""`Canary`: one token from a newly installed engine, before anybody relies on it.

That a program prints its version says little: it may lack code for this GPU, hold instructions
that this processor does not have, or miss a library that it loads late. So the engine is started
the way a load would start it, with a model that came with Lemonade, and has to answer a question.
It is a child like any other to the supervisor, and no resident: nobody can ask it anything else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from lemonade.catalog import CanarySpec, RecipeSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import LemonadeError, SetupFailed, UpstreamError
from lemonade.core.inference import JsonObject, Operation
from lemonade.installer import TrialListener, make_compile_cache
from lemonade.planning import InstallPlan, plan_launch
from lemonade.residency.newcomers import NAME, Newcomers
from lemonade.residency.placement import Instance, Placement
from lemonade.upstream import UpstreamRequest

log = logging.getLogger(__name__)

STEP: Final = "try a token"

_ANSWER_LIMIT: Final = 1 << 20
_QUOTED_LINES: Final = 6
_QUOTED_CHARACTERS: Final = 300
_DYING_WITHIN: Final = 2.0
"""Seconds in which an engine that broke a connection may turn out to have crashed."""

_QUESTIONS: Final[Mapping[str, JsonObject]] = {
    "chat": {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
        "temperature": 0,
    },
    "completion": {"prompt": "Hello", "max_tokens": 1, "temperature": 0},
    "embeddings": {"input": "Hello"},
}


class Canary:
    """Tries bundles in their staging folder. Made by the composition root for the installer."""

    def __init__(self, newcomers: Newcomers, placement: Placement) -> None:
        self._newcomers = newcomers
        self._placement = placement

    async def __call__(self, plan: InstallPlan, bundle: Bundle, tell: TrialListener) -> None:
        """Return when the engine has made a token and is gone again.

        Does nothing where its recipe says nothing to ask, or this machine is not one it runs on.
        Whoever is cancelled waits for the engine's end.

        Args:
            plan: what is being installed.
            bundle: where it is now.
            tell: told if there is something to wait for.

        Raises:
            SetupFailed: it could not be started, ended, or answered something else.
        """
        recipe = self._newcomers.catalog.recipe(plan.backend.recipe)
        canary = recipe.canary
        runs_here = plan.verdict is None or plan.verdict.supported
        if canary is None or not runs_here:
            return
        tell(STEP, "")
        try:
            port = self._placement.lease_endpoint()
            try:
                api_key = secrets.token_urlsafe(24) if recipe.upstream.api_key_env else ""
                facts = self._newcomers.facts(plan, bundle, port.endpoint, api_key)
                spec = plan_launch(facts)
                await asyncio.to_thread(make_compile_cache, facts.compile_cache, spec.env)
                instance = await self._placement.start(spec, api_key=api_key)
                await _try(plan, instance, recipe, canary)
            finally:
                port.release()
        except SetupFailed:
            raise
        except LemonadeError as error:
            raise _failed(plan, error.message.removeprefix(f"{NAME}: "), error.facts) from error


async def _try(
    plan: InstallPlan, instance: Instance, recipe: RecipeSpec, canary: CanarySpec
) -> None:
    """Ask, and end it in any case."""
    operation = Operation(canary.operation)
    question = {"model": NAME, **_QUESTIONS[operation]}
    request = UpstreamRequest(
        "POST", recipe.upstream.operations[operation], json.dumps(question).encode()
    )
    flaw = ""
    try:
        await instance.ready()
        flaw = await _ask(instance, request, operation, canary.answers_within)
    except UpstreamError as error:
        flaw = error.message
        with suppress(TimeoutError):  # what ended it says more than that it is gone
            async with asyncio.timeout(_DYING_WITHIN):
                await instance.ended()
    finally:
        report = await instance.stop(now=True)
    facts = {
        "exit_status": report.status,
        "signal": report.signal,
        "last_lines": list(report.last_lines),
    }
    if flaw and not report.expected:
        flaw = f"{flaw.removesuffix('.')}; the engine {report.sentence()}."
    if not flaw and report.survivors:
        flaw = f"processes of it cannot be ended: {', '.join(map(str, report.survivors))}."
    if flaw:
        lines = [line[:_QUOTED_CHARACTERS] for line in report.last_lines if line.strip()]
        said = "\n".join(lines[-_QUOTED_LINES:])
        quoted = f" Its last lines: {said}" if lines else " It printed nothing."
        raise _failed(plan, flaw + quoted, facts)
    log.info("%s %s made its first token", plan.backend, plan.version)


async def _ask(
    instance: Instance, request: UpstreamRequest, operation: Operation, within: float
) -> str:
    """What is wrong with the answer, as a sentence; empty if nothing is.

    Raises:
        UpstreamError: there is no answer.
    """
    try:
        async with asyncio.timeout(within), await instance.upstream.send(request) as response:
            body = await response.read(_ANSWER_LIMIT)
            status = response.status
    except TimeoutError:
        return f"it did not answer within {within:g} s."
    if status != 200:
        shown = body[:_QUOTED_CHARACTERS].decode(errors="replace")
        return f"it answered {status}: {shown}"
    try:
        answer = json.loads(body)
        good = _has_vector(answer) if operation is Operation.EMBEDDINGS else _has_token(answer)
    except (ValueError, LookupError, TypeError):
        shown = body[:_QUOTED_CHARACTERS].decode(errors="replace")
        return f"its answer is not what was asked for: {shown}"
    if good:
        return ""
    what = "vector" if operation is Operation.EMBEDDINGS else "token"
    return f"there is not one {what} in its answer."


def _has_token(answer: Any) -> bool:  # noqa: ANN401 - whatever an engine says
    choice = answer["choices"][0]
    text = choice["message"] if "message" in choice else {"content": choice["text"]}
    if not isinstance(text, dict):
        raise TypeError
    return int(answer["usage"]["completion_tokens"]) >= 1


def _has_vector(answer: Any) -> bool:  # noqa: ANN401 - whatever an engine says
    vector = answer["data"][0]["embedding"]
    return len(vector) > 0 and all(isinstance(number, float | int) for number in vector)


def _failed(plan: InstallPlan, why: str, facts: Mapping[str, object]) -> SetupFailed:
    remedy = "This build does not work on this machine; what was installed before stays in use."
    if facts.get("signal") == signal.SIGILL:
        remedy = (
            "It holds instructions that this processor does not have: choose another backend. "
            "What was installed before stays in use."
        )
    return SetupFailed(
        f"{plan.backend} {plan.version} was fetched and starts, but a first question to it "
        f"failed: {why}",
        remedy=remedy,
        facts=facts,
    )
