"""What operators decide about engines that fail or hang is felt, and shown."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Serving, eventually, fake_catalog, fake_model, gone, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "dies", args="--exit-at-start 3")
    fake_model(catalog, "wedged", args="--answers never")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def decide(server: Serving, **settings: object) -> None:
    reply = server.post("../../internal/set", settings)
    assert reply.status_code == 200, reply.text


def test_the_circuit_opens_after_as_many_failures_as_was_decided(server: Serving) -> None:
    decide(server, crash={"failures": 1, "open_s": 4000.0, "open_max_s": 5000.0})
    assert server.post("load", {"model_name": "dies"}).status_code == 500
    refused = server.post("load", {"model_name": "dies"})
    assert refused.status_code == 503
    assert 3900 < int(refused.headers["Retry-After"]) <= 4000
    decide(server, crash={"failures": 0})
    for _ in range(4):
        assert server.post("load", {"model_name": "dies", "force": True}).status_code == 500


def test_a_setting_decides_how_long_an_engine_may_stand_still(server: Serving) -> None:
    decide(server, hang={"timeout_s": 0.4}, crash={"failures": 1})
    assert server.post("load", {"model_name": "wedged"}).status_code == 200
    pid = server.loaded()["wedged"]["pid"]
    asking = threading.Thread(target=lambda: server.chat("wedged"))
    asking.start()
    eventually(lambda: gone(pid), "the engine is ended")
    asking.join()
    assert "did nothing for 0.4 s" in server.log()


def test_it_is_explained(server: Serving) -> None:
    decide(server, hang={"idle_s": 9.0}, crash={"failures": 7})
    told = server.post("models/wedged/explain", {"hang_timeout": 11}).json()
    assert told["hang"] == {"idle_s": 9.0, "failing_probes_s": 11.0, "passing_probes_s": 11.0}
    assert told["crash"]["failures"] == 7
    off = server.post("models/wedged/explain", {"watch_hangs": False}).json()["hang"]
    assert set(off.values()) == {0.0}


def test_limits_hold_for_every_engine_and_it_is_said_who_set_them(server: Serving) -> None:
    decide(server, limits={"nice": 3, "max_open_files": 512})
    told = server.post("models/wedged/explain", {"nice": 4}).json()["options"]
    assert (told["nice"]["value"], told["nice"]["origin"]) == (4, "request")
    assert (told["max_open_files"]["value"], told["max_open_files"]["origin"]) == (512, "config")
    assert server.post("load", {"model_name": "wedged"}).status_code == 200
    pid = server.loaded()["wedged"]["pid"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max open files +512 +512", limits)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 3 + os.getpriority(os.PRIO_PROCESS, 0)
    refused = server.post("../../internal/set", {"limits": {"nice": 40}})
    assert refused.status_code == 400
