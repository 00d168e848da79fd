"""Ctrl-C: one line, exit code 130, and the server learns of it."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import PATIENCE, Cli, Server, eventually


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["pull", "Slow"], "/api/v1/pull"),
        (["load", "Slow-here"], "/api/v1/load"),
        (["load", "Slow"], "/api/v1/pull"),
        (["run", "Slow-here", "Hello"], "/api/v1/load"),
        (["run", "Demo-1B-GGUF", "stay"], "/api/v1/chat/completions"),
        (["logs", "-f"], "/api/v1/logs"),
    ],
)
def test_ctrl_c_stops_following_and_hangs_up(
    cli: Cli, server: Server, words: list[str], path: str
) -> None:
    with cli.running(*words) as process:
        eventually(lambda: server.asked(path.removeprefix("/api/v1")), "the server was asked")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert [line for line in stderr.splitlines() if line][-1] == "Interrupted."
    assert "Traceback" not in stderr
    assert eventually(server.left, "the server noticed") == [path]
