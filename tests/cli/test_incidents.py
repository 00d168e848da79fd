"""`incidents`, what `ps` and `status` say of models that keep failing, and `load --force`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Cli, Server

API = "/api/v1"
INCIDENT = {
    "id": "261121-115604-312",
    "time": "2026-11-21T11:56:04.312+00:00",
    "kind": "crashed",
    "model": "Demo-1B-GGUF",
    "backend": "llamacpp:wheel",
    "phase": "serving",
    "ended": "ended by SIGABRT after 3.2 s",
    "requests": 2,
    "cause": "The GPU has faulted.",
    "fix": "Let it rest.",
    "argv": ["/bin/engine", "--port", "1"],
    "kernel": ["amdgpu: GPU reset begin!"],
    "how": "device-fault",
    "memory": {"resident_bytes": 3 << 30, "device_bytes": 0, "still_held_bytes": 0},
    "metrics": {"seen": "2026-11-21T11:56:00.000+00:00", "samples": ["x_total 3"]},
    "last_lines": ["loading", "bad \x1b[31mred\x1b[0m"],
}
FAILING = {
    "model_name": "Demo-1B-GGUF",
    "failures": 3,
    "open_until": 1795262164,
    "retry_after": 42,
    "cause": "The GPU has faulted.",
    "incident": INCIDENT["id"],
}


def test_incidents_are_listed(cli: Cli, server: Server) -> None:
    server.reset(answers={f"{API}/incidents": {"incidents": []}})
    assert cli("incidents").stdout == "No incidents.\n"
    server.reset(answers={f"{API}/incidents": {"incidents": [INCIDENT]}})
    done = cli("incidents", "--model", "Demo", "-n", "3")
    for word in (INCIDENT["id"], "crashed", "Demo-1B-GGUF", "The GPU has faulted."):
        assert str(word) in done.stdout
    assert server.asked("/incidents")[0]["query"] == {"limit": "3", "model": "Demo"}
    assert json.loads(cli("incidents", "--json").stdout) == [INCIDENT]


def test_one_incident_is_told_whole(cli: Cli, server: Server) -> None:
    server.reset(answers={f"{API}/incidents/{INCIDENT['id']}": INCIDENT})
    shown = cli("incidents", str(INCIDENT["id"])).stdout
    for word in ("ended by SIGABRT", "Let it rest.", "/bin/engine --port 1", "GPU reset begin!"):
        assert word in shown
    for word in ("device-fault", "3.2 GB of main memory", "x_total 3"):
        assert word in shown
    assert "of devices" not in shown
    assert "\x1b" not in shown
    assert json.loads(cli("incidents", str(INCIDENT["id"]), "--json").stdout) == INCIDENT


def test_a_log_of_the_kernel_that_cannot_be_read_is_said_so(cli: Cli, server: Server) -> None:
    unread = {**INCIDENT, "kernel": [], "kernel_unread": "/dev/kmsg cannot be read: denied"}
    server.reset(answers={f"{API}/incidents/{INCIDENT['id']}": unread})
    shown = cli("incidents", str(INCIDENT["id"])).stdout
    assert "Nothing that is known: /dev/kmsg cannot be read: denied." in shown


def test_an_incident_that_is_not_there_is_one_line(cli: Cli) -> None:
    done = cli("incidents", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["ps", "status"])
def test_what_keeps_failing_is_said_beside_the_table(
    cli: Cli, server: Server, command: str
) -> None:
    assert cli(command).stderr == ""
    health = {"version": "1", "all_models_loaded": [], "models_failing": [FAILING]}
    server.reset(answers={f"{API}/health": health})
    told = cli(command).stderr
    assert "Demo-1B-GGUF failed 3 times lately, not started for 42 s" in told
    assert f"lemonade incidents {INCIDENT['id']}" in told


def test_a_load_may_insist(cli: Cli, server: Server) -> None:
    assert cli("load", "Demo-1B-GGUF").returncode == 0
    assert "force" not in server.asked("/load")[0]["body"]
    assert cli("load", "Demo-1B-GGUF", "--force").returncode == 0
    assert server.asked("/load")[1]["body"]["force"] is True
