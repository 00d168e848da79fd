"""How the child ends: when told, with its parent, and with a reason when it cannot start."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.engine.children import PATIENCE, Child, model, outcome, running

pytestmark = pytest.mark.engine

ENDLESS = {
    "messages": [{"role": "user", "content": "Tell me a story about a fox"}],
    "stream": True,
    "ignore_eos": True,
    "max_tokens": 1_000_000,
}

PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True)
for line in child.stderr:
    if line.startswith("serving on"):
        break
print(child.pid, flush=True)
for line in child.stderr:
    pass
"""


def test_term_while_idle(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-lemon-Q8_0.gguf") as child:
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(PATIENCE) == 0


def test_term_with_a_stream_open(engine: tuple[str, ...]) -> None:
    # llama-server itself would wait for the stream's next ping, which we set out of reach.
    ping = ("--sse-ping-interval", "3600")
    with running(engine, "tiny-lemon-Q8_0.gguf", *ping) as child, _streaming(child):
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(PATIENCE) == 0


def test_the_parent_is_killed(engine: tuple[str, ...]) -> None:
    arguments = ("-m", model("tiny-lemon-Q8_0.gguf"), "--port", "0", "-t", "1", "--fit", "off")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *engine, *arguments], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not _gone(pid)
        parent.kill()
        parent.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not _gone(pid):
            assert time.monotonic() < deadline, "the child outlived its parent"
            time.sleep(0.01)


def test_corrupt_model(engine: tuple[str, ...], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(Path(model("tiny-lemon-Q8_0.gguf")).read_bytes()[:5000])
    status, output, errors = outcome(engine, "-m", str(damaged), "--port", "0")
    assert (status, output) == (1, "")
    assert " E " in errors
    assert "failed to load model" in errors
    assert "Traceback" not in errors


def test_missing_model(engine: tuple[str, ...], tmp_path: Path) -> None:
    status, _, errors = outcome(engine, "-m", str(tmp_path / "none.gguf"), "--port", "0")
    assert status == 1
    assert "No such file" in errors


def test_port_taken(engine: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("-m", model("tiny-lemon-Q8_0.gguf"), "--port", port, "-t", "1")
        status, _, errors = outcome(engine, *arguments)
    assert status == 1
    assert " E " in errors


def _streaming(child: Child) -> requests.Response:
    """A stream that has begun and would go on for long."""
    reply = child.post("/v1/chat/completions", ENDLESS, stream=True)
    assert next(reply.iter_lines()).startswith(b"data: ")
    return reply


def _gone(pid: int) -> bool:
    """A zombie nobody has buried yet is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
