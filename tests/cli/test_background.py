"""Servers that the command line starts: one that outlives it, and one that must not."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import PATIENCE, Cli, eventually

TETHER = """
import sys
from pathlib import Path
from lemonade.cli.background import start_server, wait_until_live
from lemonade.client import LemonadeClient

port = int(sys.argv[1])
server = start_server(port, Path(sys.argv[2]), tethered=True)
wait_until_live(server, LemonadeClient(f"http://127.0.0.1:{port}"))
print(server.pid, flush=True)
sys.stdin.read()
"""


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits only to be waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_run_starts_a_server_that_goes_on(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    cli = Cli({**environment, "LEMONADE_PORT": port})
    try:
        done = cli("run", "No-Such-Model", "hi")
        assert (done.returncode, done.stdout) == (1, "")
        assert "goes on in the background; `lemonade stop` ends it." in done.stderr
        assert "There is no model 'No-Such-Model'." in done.stderr
        assert cli("status", "--json").stdout == f'{{"port":{port}}}\n'
        assert f":{port}" in cli("logs", "--server").stdout
        second = cli("serve", "--port", port)
        assert second.returncode == 1
        assert len(second.stderr.splitlines()) == 1
    finally:
        stopped = cli("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "Server stopped.\n")
    log = tmp_path / "run" / "lemonade" / "server.log"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_tethered_server_dies_with_its_starter(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TETHER, free_port(), str(tmp_path / "server.log")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
        starter.wait(PATIENCE)
    eventually(lambda: ended(pid), "the server is gone")


def test_demo_does_not_touch_a_server_that_is_there(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = Cli(environment)("demo", "--once", "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"Error: Port {port} is taken. Leave --port out to take a free one.\n"


def test_demo_interrupted_while_it_starts_leaves_nothing(environment: dict[str, str]) -> None:
    port = free_port()
    cli = Cli({**environment, "LEMONADE_PORT": port})
    with cli.running("demo", "--port", port) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Waiting for the server"):
                break
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "Interrupted."
    assert cli("status", "--json").returncode == 1
