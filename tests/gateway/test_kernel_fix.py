"""An installation on a machine whose kernel lacks a fix: told, not an error, nothing installed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from lemonade.catalog import Catalog, sources
from lemonade.client import LemonadeClient
from lemonade.config import Configuration
from lemonade.core.errors import ServerRefused
from lemonade.core.ids import BackendId
from lemonade.gateway.backends import backend_routes
from lemonade.gateway.parts import PARTS
from lemonade.hardware import Instruments, detect
from lemonade.installer import Bundles
from lemonade.residency import Selections
from lemonade.storage import directories
from tests.unit.hardware import trees

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

ROCM = {"recipe": "llamacpp", "backend": "rocm"}


def parts_on(tree: Path, home: Path) -> Any:
    """As much of a server's parts as an installation that is refused reaches."""
    machine = detect(tree, Instruments(may_open=lambda _: True))
    catalog = Catalog.load(sources({}, home))
    places = directories(
        {"HOME": str(home), "LEMONADE_CACHE_DIR": str(home), "LEMONADE_CONFIG_DIR": str(home)}
    )
    configuration = Configuration(places, {}, sections=catalog.sections())
    bundles = Bundles(home / "bin", {})
    return SimpleNamespace(
        catalog=catalog,
        configuration=configuration,
        machine=machine,
        bundles=bundles,
        selections=Selections(catalog, configuration, machine, bundles),
    )


async def test_what_somebody_has_to_do_is_an_answer(tmp_path: Path, aiohttp_client: Any) -> None:
    parts = parts_on(trees.strix_halo_unfixed(tmp_path / "tree"), tmp_path)
    backend = parts.catalog.backend(BackendId("llamacpp", "rocm"))
    status = parts.selections.status(backend)
    assert status.state == "action_required"
    assert "The kernel lacks a fix" in status.message

    app = web.Application()
    app[PARTS] = parts
    for route in backend_routes():
        app.router.add_post(f"/api/v1{route.path}", route.handler)
    client = await aiohttp_client(app)
    for stream in (False, True):
        reply = await client.post("/api/v1/install", json={**ROCM, "stream": stream})
        assert reply.status == 200
        answer = await reply.json()
        assert set(answer) == {"action", "recipe", "backend"}
        assert "The kernel lacks a fix" in answer["action"]
        assert "Start Linux 6.18.4 or newer" in answer["action"]
    assert not (tmp_path / "bin").exists()

    def ask() -> None:
        with LemonadeClient(str(client.make_url("")).rstrip("/")) as asking:
            list(asking.install("llamacpp", "rocm"))

    with pytest.raises(ServerRefused, match=r"needs a manual step: .* lacks a fix .* 6\.18\.4"):
        await asyncio.to_thread(ask)


def test_what_is_not_there_at_all_stays_unsupported(tmp_path: Path) -> None:
    parts = parts_on(trees.plain(tmp_path / "tree"), tmp_path)
    status = parts.selections.status(parts.catalog.backend(BackendId("llamacpp", "rocm")))
    assert status.state == "unsupported"


def test_a_device_without_its_driver_needs_somebody(tmp_path: Path) -> None:
    parts = parts_on(trees.npu_without_driver(tmp_path / "tree"), tmp_path)
    status = parts.selections.status(parts.catalog.backend(BackendId("flm", "npu")))
    assert status.state == "action_required"
