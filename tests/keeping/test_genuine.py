"""The same with the embedded engine: the model it has in memory answers in the next server."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from lemonade.storage import FileLock
from tests.keeping.conftest import KEEP, kept, killed, loaded, taken_over, unloaded
from tests.keeping.test_restarting import ask, restarted, since
from tests.serving import eventually, serving

pytestmark = [pytest.mark.slow, pytest.mark.engine]

MODEL = "Tiny-Lemon-GGUF"


def text(reply: requests.Response) -> str:
    assert reply.status_code == 200, reply.text
    said: str = reply.json()["choices"][0]["message"]["content"]
    return said


def test_it_is_killed_started_and_restarted(home: Path, engine_bundles: Path) -> None:
    with serving(home, *KEEP, bundles=engine_bundles) as first:
        row = loaded(first, MODEL, ctx_size=1024)
        said = text(first.chat(MODEL, max_tokens=8))
        killed(first)
    with serving(home, *KEEP, bundles=engine_bundles) as second:
        again = taken_over(second, MODEL)
        for key in ("pid", "backend", "backend_version", "launch_command", "recipe_options"):
            assert again[key] == row[key], key
        assert text(second.chat(MODEL, max_tokens=8)) == said
        before = since(second)
        ask(second)
        restarted(second, before)
        assert taken_over(second, MODEL)["pid"] == row["pid"]
        assert text(second.chat(MODEL, max_tokens=8)) == said
        eventually(lambda: kept(home), "it is written down again")
        lock = FileLock(Path(kept(home)[0]["facts"]["lock"]), existing=True)
        assert not lock.acquire(), "nobody may remove the version it runs"
        unloaded(second, MODEL, row["pid"])
        assert lock.acquire()
        lock.release()
