"""A GGUF file that shall be an adapter, looked at on the hub: models of that name are large.

Only its beginning is asked for. What that does not tell is left to who has the whole file.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from lemonade.checkpoints.gguf_header import begins_like_adapter
from lemonade.checkpoints.hub import Hub
from lemonade.checkpoints.placing import bytes_lacking
from lemonade.core.errors import BadAdapter, CheckpointError
from lemonade.planning.checkpoint import CheckpointPlan, RepoListing
from lemonade.planning.gguf import is_gguf

_BEGINNING: Final = 64 << 10
"""Bytes: what it is stands among the first things it says."""


async def refuse_models(hub: Hub, plan: CheckpointPlan, listing: RepoListing) -> None:
    """Refuse a file that is no adapter; nothing is kept of it.

    Raises:
        BadAdapter: it says that it is something else.
    """
    if plan.noted or not is_gguf(plan.primary):
        return
    file = next(one for one in plan.files if one.path == plan.primary)
    if not await asyncio.to_thread(bytes_lacking, hub.cache_dir, listing, (file,)):
        return
    with suppress(CheckpointError):  # the download says it better
        beginning = await hub.beginning(listing, plan.primary, _BEGINNING)
        if begins_like_adapter(beginning, whole=len(beginning) < _BEGINNING) is False:
            raise BadAdapter(
                f"{plan.primary} of {plan.repository} is a GGUF file, but not of an adapter.",
                remedy="Name another file of it, or an adapter that was made for this model.",
                facts={"repository": plan.repository, "file": plan.primary},
            )
