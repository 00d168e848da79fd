"""Genuine vLLM sees nothing of what surrounds the server, and nobody else sees vLLM."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.serving import ROOT, Serving, survivors
from tests.vllm.conftest import serving_vllm
from tests.vllm.loading import load

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

POISON = """
import os, sys
with open({trace!r}, "a") as trace:
    trace.write(f"{{os.getpid()}} {name}\\n")
{end}
"""


MODULES = ("sitecustomize", "usercustomize", "torch", "transformers")


def poison(folder: Path, trace: Path, *more: str) -> None:
    """Modules that every Python finds first, unless it is told not to look there."""
    folder.mkdir(parents=True)
    for name in (*MODULES, *more):
        end = "" if name.endswith("customize") else "raise ImportError('poison')"
        text = POISON.format(trace=str(trace), name=name, end=end)
        (folder / f"{name}.py").write_text(text)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "trace"


@pytest.fixture(scope="module")
def poisoned(
    tmp_path_factory: pytest.TempPathFactory, traces: Path, hub: str, vllm_bundles: Path
) -> Iterator[Serving]:
    """A server in whose surroundings everything is wrong that can be."""
    home = tmp_path_factory.mktemp("poisoned")
    # The server's own Python does not look into the first, and needs that package.
    poison(home / ".local/lib/python3.11/site-packages", traces, "huggingface_hub")
    poison(home / "on-path", traces)
    for name in ("libgomp.so.1", "libnuma.so.1", "libtcmalloc_minimal.so.4"):
        (home / "on-path" / name).write_text("no library")
    (home / "startup.py").write_text("raise SystemExit('startup')")
    (home / "torch.py").write_text("raise ImportError('the server was started in a bad place')")
    env = {
        "PYTHONPATH": f"{os.environ.get('PYTHONPATH') or ROOT}{os.pathsep}{home / 'on-path'}",
        "PYTHONSTARTUP": str(home / "startup.py"),
        "PYTHONINSPECT": "",
        "LD_PRELOAD": "/nonexistent/poison.so",
        "LD_LIBRARY_PATH": str(home / "on-path"),
        "HIP_VISIBLE_DEVICES": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "ROCR_VISIBLE_DEVICES": "0",
        "TRITON_CACHE_DIR": str(home / "shared-triton"),
        "XDG_CACHE_HOME": str(home / "shared-cache"),
        "HF_TOKEN": "hf_secret",
        "LEMONADE_ADMIN_API_KEY": "admin-secret",
    }
    with serving_vllm(home, hub, vllm_bundles, env) as one:
        yield one
    assert not survivors(home)


@pytest.fixture(scope="module")
def family(poisoned: Serving) -> list[int]:
    return load(poisoned)


def test_nothing_around_the_server_reaches_it(
    poisoned: Serving, family: list[int], traces: Path
) -> None:
    poisoned_ones = {line.split()[0] for line in traces.read_text().splitlines()}
    assert str(poisoned.process.pid) in poisoned_ones, "the poison works: the server has taken it"
    assert not poisoned_ones & set(map(str, family))
    said = poisoned.get("logs?model=tiny&lines=2000").text
    assert "cannot be preloaded" not in said
    for pid in family:
        environ = psutil.Process(pid).environ()
        environ.pop("LEMONADE_CHILD", None)  # the id of this run, by which it is found again
        bad = [
            name
            for name in environ
            if name.startswith(("LD_", "LEMONADE_", "HF_TOKEN")) or "VISIBLE_DEVICES" in name
            or name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT")
        ]  # fmt: skip
        # vLLM preloads an allocator into its workers; what the server was given is not there.
        assert [one for one in bad if not one.startswith("LD_")] == []
        ours = ("nonexistent", "on-path", "secret")
        assert [one for one in bad if any(word in environ[one] for word in ours)] == []
        if psutil.Process(pid).name().startswith("VLLM"):
            continue  # it has written its title over its environment
        assert environ["PYTHONNOUSERSITE"] == environ["PYTHONSAFEPATH"] == "1"


def test_what_it_compiles_is_kept_with_its_version(poisoned: Serving, family: list[int]) -> None:
    environ = psutil.Process(family[0]).environ()
    folder = Path(environ["TRITON_CACHE_DIR"]).parent
    assert folder.parent == poisoned.home / "cache" / "compile"
    assert folder.name.startswith("vllm-cpu-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert environ["XDG_CACHE_HOME"] == str(folder / "other")
    assert not (poisoned.home / "shared-cache").exists()
    assert not (poisoned.home / "shared-triton").exists()


def test_only_we_can_talk_to_it(poisoned: Serving, family: list[int]) -> None:
    row = poisoned.loaded()["tiny"]
    key = psutil.Process(family[0]).environ()["VLLM_API_KEY"]
    assert row["pid"] == family[0]
    assert key not in str(row)
    assert "--model" in row["launch_command"]
    url = row["backend_url"]
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    listening = {
        (one.laddr.ip, one.laddr.port)
        for pid in family
        for one in psutil.Process(pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert ("127.0.0.1", port) in listening
    outside = {
        place for place in listening if not place[0].startswith("127.") and place[0] != "::1"
    }
    assert outside == set(), outside
    with socket.socket() as one:
        one.settimeout(2)
        assert one.connect_ex(("127.0.0.2", port)) != 0, "not even another address of loopback"
    assert requests.get(f"{url}/models", timeout=10).status_code == 401
    allowed = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{url}/models", headers=allowed, timeout=10).status_code == 200
