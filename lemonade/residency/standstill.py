"""Finds engines that answer questions about their health and nothing else.

Somebody waits for an answer, and for a long time nobody has heard anything of the engine. That may
be right: an engine that computes is busy, and one whose client does not read has to wait. So two
more things must be true before it is given up. None of its processes works, by what the kernel
says; and a question for a single token, put to it beside the others, finds no answer in as long a
time again. An engine that cannot be asked for a token is never given up.
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
        if patience <= 0 or instance.upstream.silence < patience:
            continue
        if await _works(instance, question, patience):
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


async def _works(instance: Instance, question: UpstreamRequest, patience: float) -> bool:
    """Whether it answers before it has stood still for the time given, or works all the while."""
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

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask())
        still = group.create_task(instance.stands_still(patience))
        asking.add_done_callback(lambda _: still.cancel())
        still.add_done_callback(lambda _: asking.cancel())
    return answered
