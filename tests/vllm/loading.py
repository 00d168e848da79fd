"""Loads the model with vLLM, and notes every process that belongs to it."""

from __future__ import annotations

import psutil

from tests.serving import Serving

READY_WITHIN = 900.0


def load(server: Serving) -> list[int]:
    """Load the model; pids of the API server, its engine, the worker and the tracker."""
    body = {
        "model_name": "tiny",
        "ctx_size": 1024,
        "vllm_args": "--max-num-seqs 4 --enable-auto-tool-choice --tool-call-parser hermes",
    }
    reply = server.post("load", body, timeout=READY_WITHIN)
    assert reply.status_code == 200, reply.text + server.log()[-2000:]
    root = psutil.Process(server.loaded()["tiny"]["pid"])
    names = {child.pid: child.name() for child in root.children(recursive=True)}
    assert any(name.startswith("VLLM::EngineCor") for name in names.values()), names
    assert any(name.startswith("VLLM::Worker") for name in names.values()), names
    return [root.pid, *names]
