"""Servers whose engines outlive them, and the proof that in the end nothing is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Serving, eventually, fake_catalog, fake_model, gone, survivors

KEEP = ("--on-exit", "keep")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The test's own directory; at the end nothing of it may be alive."""
    yield tmp_path
    left = survivors(tmp_path)
    for one in left:  # so that the next test does not run beside them
        os.kill(int(one.split()[0]), signal.SIGKILL)
    assert not left, f"still alive: {left}"


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """A catalogue of engines with and without bad habits."""
    folder = fake_catalog(home)
    fake_model(folder, "one")
    fake_model(folder, "two")
    fake_model(folder, "slow", args="--ready-after 600")
    fake_model(folder, "brood", args="--spawn-engine --engine-escapes --engine-ignores-term")
    fake_model(folder, "long", args="--chunks 40 --slow-chunks 0.05")
    fake_model(folder, "endless", args="--chunks 100000 --slow-chunks 0.05")
    return {"LEMONADE_CATALOG": str(folder)}


def children(home: Path) -> Path:
    """Where a server records its engines."""
    return home / "cache" / "state" / "children"


def files(home: Path, suffix: str) -> list[Path]:
    return sorted(children(home).glob(f"*{suffix}"))


def kept(home: Path) -> list[dict[str, Any]]:
    """What the next server finds."""
    return [json.loads(path.read_text()) for path in files(home, ".kept")]


def loaded(server: Serving, model: str, **options: object) -> dict[str, Any]:
    """Load it, and wait until it is written down; its row."""
    assert server.post("load", {"model_name": model, **options}).status_code == 200
    row = server.loaded()[model]
    pid = row["pid"]
    eventually(
        lambda: pid in [one["pid"] for one in kept(server.home)], f"{model} is written down"
    )
    return row


def taken_over(server: Serving, model: str) -> dict[str, Any]:
    """Its row once it serves."""
    row: dict[str, Any] = eventually(lambda: server.loaded().get(model), f"{model} serves again")
    assert row["adopted"] is True
    return row


def killed(server: Serving) -> None:
    server.process.kill()
    server.process.wait()


def unloaded(server: Serving, model: str, pid: int) -> None:
    assert server.post("unload", {"model_name": model}).status_code == 200
    assert gone(pid)
    assert files(server.home, ".json") == []
    assert [path.name for path in children(server.home).iterdir()] == ["taking-over.lock"]
