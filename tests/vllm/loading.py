"""Loads the model with vLLM, and notes every process that belongs to it."""

from __future__ import annotations

from typing import Final

import psutil

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
