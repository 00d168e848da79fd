"""The server keeps the machine awake while a model works, and its helper ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.processes.test_inhibitor import HOLDS
from tests.serving import PATIENCE, Serving, eventually, fake_catalog, fake_model, gone, serving


def environment_with_logind(home: Path) -> dict[str, str]:
    catalog = fake_catalog(home)
    fake_model(catalog, "one", args="--chunks 500 --slow-chunks 0.05")
    folder = home / "bin"
    folder.mkdir()
    program = folder / "systemd-inhibit"
    program.write_text(HOLDS.format(calls=home / "calls"))
    program.chmod(0o755)
    return {
        "LEMONADE_CATALOG": str(catalog),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere",
    }


def holder(home: Path) -> int:
    """Who holds the lock."""
    calls = home / "calls"
    eventually(lambda: calls.exists() and calls.read_text(), "the machine is kept awake")
    return int(calls.read_text().split()[0])


@contextmanager
def streaming(server: Serving) -> Iterator[None]:
    """A request that goes on meanwhile."""
    with server.chat("one", stream=True) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith(b"data: ")
        yield
        lines.close()


def test_a_request_keeps_the_machine_awake_until_the_server_ends(home: Path) -> None:
    with serving(home, env=environment_with_logind(home)) as server, streaming(server):
        pid = holder(home)
        assert not gone(pid)
        off = {"inhibit_suspend": False}
        reply = requests.post(f"{server.url}/internal/set", json=off, timeout=PATIENCE)
        assert reply.status_code == 200
        eventually(lambda: gone(pid), "nobody wants it any more")
        assert set(server.loaded()) == {"one"}


def test_the_helper_does_not_outlive_a_server_that_is_killed(home: Path) -> None:
    with serving(home, env=environment_with_logind(home)) as server, streaming(server):
        pid = holder(home)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(PATIENCE)
        eventually(lambda: gone(pid), "it ends with the server")
