"""`lemonade demo`, from nothing to an answer, and every way out of it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, Cli
from tests.end_to_end.conftest import link_bundles, terminal
from tests.serving import eventually, gone, survivors

pytestmark = [pytest.mark.slow, pytest.mark.engine]

REPORT = re.compile(
    r"\[1/4\] Starting a server on port (?P<port>\d+)\n.*"
    r"\[2/4\] Installing the engine\n.*"
    r"\[3/4\] Loading Tiny-Lemon-GGUF, a demonstration of 1 MB.*"
    r"\[4/4\] Asking: .*?\n\n(?P<answer>\S.+?)\n\n"
    r"  Engine +llamacpp:wheel (?P<version>[\d.]+)\n"
    r"  Engine process +pid (?P<pid>\d+), private port \d+\n"
    r"  Time to first token +\d+\.\d+ s\n"
    r"  Speed +\d+\.\d tokens/s\n"
    r"  Base URL +http://127\.0\.0\.1:(?P=port)/v1\n\n"
    r"Try it:\n\n"
    r"  (?P<curl>curl -N http://127\.0\.0\.1:(?P=port)/v1/chat/completions [^\n]+)\n",
    re.DOTALL,
)


def test_from_nothing_and_then_again_without_an_index(bare: Cli, home: Path) -> None:
    first = bare("demo", "--once")
    assert first.returncode == 0, first.stderr
    shown = REPORT.search(first.stdout)
    assert shown, first.stdout
    assert "Installing backend: llamacpp:wheel" in first.stdout
    assert first.stdout.endswith("\nThe server and its engine are gone.\n")
    assert gone(int(shown["pid"]))
    assert not survivors(home)

    empty = home / "no wheels"
    empty.mkdir()
    cut_off = {"LEMONADE_WHEELS": str(empty), "PIP_NO_INDEX": "1"}
    second = bare("demo", "--once", env=cut_off)
    assert second.returncode == 0, second.stderr
    again = REPORT.search(second.stdout)
    assert again, second.stdout
    assert "llamacpp:wheel is installed already." in second.stdout
    assert again["answer"] == shown["answer"]


@pytest.mark.parametrize("key", ["", "a key of mine"])
def test_the_curl_line_works_until_ctrl_c(cli: Cli, key: str) -> None:
    env = {**cli.env, **({"LEMONADE_API_KEY": key} if key else {})}
    command = (sys.executable, "-m", "lemonade", "demo")
    with terminal(command, {**env, "COLUMNS": "400"}) as screen:
        screen.expect(r"Serving at \S+ until Ctrl-C\.")
        shown = REPORT.search(screen.text)
        assert shown, screen.text
        answer = subprocess.run(
            ["bash", "-c", shown["curl"]],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        lines = [line for line in answer.stdout.splitlines() if line]
        assert lines[-1] == "data: [DONE]", answer.stdout
        assert json.loads(lines[0].removeprefix("data: "))["choices"]
        pid = int(shown["pid"])
        assert not gone(pid)
        screen.press("\x03")
        assert screen.ended() == 130
        assert screen.text.rstrip().endswith("Interrupted.")
        assert "Traceback" not in screen.text
        assert gone(pid)


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("[1/4] create environment", signal.SIGINT),
        ("[3/4] Loading", signal.SIGINT),
        ("[4/4] Asking", signal.SIGINT),
        ("Serving at", signal.SIGTERM),
        ("Serving at", signal.SIGHUP),
        ("Serving at", signal.SIGKILL),
    ],
)
def test_whatever_ends_it_leaves_nothing_and_the_next_one_goes_on(
    bare: Cli, home: Path, engine_bundles: Path, stage: str, number: signal.Signals
) -> None:
    if "environment" not in stage:
        link_bundles(home, engine_bundles)
    with bare.running("demo") as process:
        assert process.stdout is not None
        assert any(line.startswith(stage) for line in process.stdout)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "Interrupted."
    else:
        assert process.returncode == (-number if number is signal.SIGKILL else 128 + number)
    assert "Traceback" not in stderr
    if number is not signal.SIGKILL:
        assert not survivors(home), "it ended after its server and engine"
    else:
        eventually(lambda: not survivors(home), "the server ends with its starter", within=5.0)
    following = bare("demo", "--once")
    assert following.returncode == 0, following.stderr
    assert REPORT.search(following.stdout)


def test_a_taken_port_is_no_obstacle(cli: Cli) -> None:
    del cli.env["LEMONADE_PORT"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it: as good
            other.bind(("127.0.0.1", 13305))
            other.listen()
        done = cli("demo", "--once")
    assert done.returncode == 0, done.stderr
    shown = REPORT.search(done.stdout)
    assert shown, done.stdout
    assert shown["port"] != "13305"
