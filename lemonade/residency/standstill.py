"""Finds engines that answer questions about their health and nothing else.

Somebody waits for an answer, and for a long time nobody has heard anything of the engine. That may
be right: an engine that computes is busy, and one whose client does not read has to wait. So more
must be true before it is given up. None of its processes works, by what the kernel says; its own
counters of what it has made do not rise; and a question for a single token, put to it beside the
others, finds no answer in as long a time again. An engine that cannot be asked for a token is
never given up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from lemonade.core.errors import UpstreamError
from lemonade.core.inference import JsonObject, Operation
from lemonade.core.process import HANG
from lemonade.residency.counters import progress_of
from lemonade.residency.placement import Instance
from lemonade.residency.resident import Resident
from lemonade.residency.wellness import Patience
from lemonade.upstream import UpstreamRequest

log = logging.getLogger(__name__)

_LOOKS: Final = 4
"""Looks at the connections in the time that an engine may be silent."""

_LONGEST_PAUSE: Final = 15.0
_ANSWER_LIMIT: Final = 1 << 20

_QUESTIONS: Final[Mapping[Operation, JsonObject]] = {
    Operation.COMPLETION: {"prompt": "Hello", "max_tokens": 1},
    Operation.CHAT: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1},
    Operation.EMBEDDINGS: {"input": "Hello"},
}


async def give_up_if_it_stands_still(
    resident: Resident, patience_now: Callable[[], Patience]
) -> None:
    """Watch an engine while it serves; return when it was given up, or never."""
    instance = resident.instance
    assert instance is not None
    question = _question(resident)
    if question is None or instance.spec.probe.stall_timeout <= 0:
        return
    while True:
        patience = patience_now().still
        await asyncio.sleep(min(patience / _LOOKS, _LONGEST_PAUSE) or _LONGEST_PAUSE)
        if patience <= 0 or instance.upstream.quiet < patience:
            continue
        if await _works(resident, instance, question, patience):
            await asyncio.sleep(patience)
            continue
        resident.hung = f"answered nobody, did nothing for {patience:g} s and was ended"
        instance.give_up(f"it answers nobody and did nothing for {patience:g} s", HANG)
        return


def _question(resident: Resident) -> UpstreamRequest | None:
    for operation, body in _QUESTIONS.items():
        path = resident.recipe.upstream.operations.get(operation)
        fits = (operation is Operation.EMBEDDINGS) == (resident.spec.mode == "embeddings")
        if path and fits:
            return UpstreamRequest(
                "POST", path, json.dumps({"model": resident.served_name, **body}).encode()
            )
    return None


async def _works(
    resident: Resident, instance: Instance, question: UpstreamRequest, patience: float
) -> bool:
    """Whether it answers, or its counters rise, before it has stood still for the time given."""
    log.info("%s: nobody has heard of it for %g s; asking it", instance.spec.name, patience)
    answered = False

    async def ask() -> None:
        nonlocal answered
        try:
            async with await instance.upstream.send(question) as response:
                await response.read(_ANSWER_LIMIT)
            answered = True  # whatever it says
        except UpstreamError:
            await instance.ended()  # that is seen elsewhere

    async def heed_counters() -> None:
        nonlocal answered
        before: float | None = None
        while True:
            now = await progress_of(resident)
            if before is not None and now is not None and now != before:
                answered = True
                return
            before = before if now is None else now
            await asyncio.sleep(min(patience / _LOOKS, _LONGEST_PAUSE))

    async with asyncio.TaskGroup() as group:
        works = [ask(), instance.stands_still(patience), heed_counters()]
        tasks = [group.create_task(work) for work in works]
        for task in tasks:
            task.add_done_callback(lambda _: [other.cancel() for other in tasks])
    return answered
