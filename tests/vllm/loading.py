"""Loads the model with vLLM, and notes every process that belongs to it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import psutil
import requests

from tests.serving import Serving

READY_WITHIN: Final = 900.0
OPTIONS: Final = {
    "ctx_size": 1024,
    "vllm_args": "--max-num-seqs 4 --enable-auto-tool-choice --tool-call-parser hermes",
}


def load(server: Serving) -> list[int]:
    """Load the model; pids of the API server, its engine, the worker and the tracker."""
    # One that tests have killed several times would be given a rest first.
    body = {"model_name": "tiny", "save_options": True, "force": True, **OPTIONS}
    reply = server.post("load", body, timeout=READY_WITHIN)
    assert reply.status_code == 200, reply.text + server.log()[-2000:]
    return family_of(server)


def phases_of_a_load(server: Serving) -> list[str]:
    """The same, followed as it goes: the phases of the start as they are told."""
    body = {"model_name": "tiny", "save_options": True, "stream": True, **OPTIONS}
    phases = []
    with requests.post(
        f"{server.api}/load", json=body, stream=True, timeout=READY_WITHIN
    ) as reply:
        assert reply.status_code == 200, reply.text
        name = ""
        for line in reply.iter_lines(decode_unicode=True):
            name = line.removeprefix("event: ") if line.startswith("event: ") else name
            data = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if name == "progress" and data.get("phase"):
                phases.append(str(data["phase"]))
            assert name != "error", line
    assert name == "complete"
    return list(dict.fromkeys(phases))


def lemonade(server: Serving, *words: str) -> str:
    """What the command line prints, to whichever stream."""
    done = subprocess.run(
        [sys.executable, "-m", "lemonade", "--port", server.url.rpartition(":")[2], *words],
        capture_output=True, text=True, timeout=READY_WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def family_of(server: Serving) -> list[int]:
    """The same of a model that is loaded."""
    root = psutil.Process(server.loaded()["tiny"]["pid"])
    names = {child.pid: child.name() for child in root.children(recursive=True)}
    assert any(name.startswith("VLLM::EngineCor") for name in names.values()), names
    assert any(name.startswith("VLLM::Worker") for name in names.values()), names
    return [root.pid, *names]


def starting(server: Serving) -> list[int]:
    """The same of a model that is being started; empty until its worker is there."""
    for child in psutil.Process(server.process.pid).children():
        try:
            if "vllm.entrypoints.openai.api_server" not in child.cmdline():
                continue
            names = {one.pid: one.name() for one in child.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
        if any(name.startswith("VLLM::Worker") for name in names.values()):
            return [child.pid, *names]
    return []
