"""Engines from packages for tests: installed by the real installer, once for each directory.

The wheels come from the folder in LEMONADE_WHEELS if that is set, otherwise from wherever pip is
configured to look.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lemonade.catalog import Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.ids import BackendId
from lemonade.hardware import detect
from lemonade.installer import Bundles, Installer
from lemonade.planning import plan_install, select

WHEEL = BackendId("llamacpp", "wheel")
GENAI = BackendId("ryzenai-llm", "cpu")


def installed_engine(cache: Path, backend: BackendId = WHEEL) -> Bundle:
    """The backend in `cache`, as a server with that cache directory would find it."""
    with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop of its own
        return thread.submit(asyncio.run, _install(cache, backend)).result()


def engine_command(bundle: Bundle) -> tuple[str, ...]:
    """The program and its fixed arguments, ready to be started."""
    overlay = _catalog().overlay_dir(bundle.backend)
    return tuple(word.replace("{overlay}", str(overlay)) for word in bundle.argv)


async def _install(cache: Path, backend: BackendId) -> Bundle:
    spec = _catalog().backend(backend)
    bundles = Bundles(cache / "bin", os.environ)
    machine = detect()
    plan = plan_install(select(spec, machine), machine, bundles.present(spec), bundles.root)
    async with Installer(bundles, Bus(), os.environ) as installer:
        return await installer.install(plan, lambda _: None)


def _catalog() -> Catalog:
    return Catalog.load((shipped(),))
