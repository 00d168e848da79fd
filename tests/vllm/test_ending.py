"""Genuine vLLM is gone when we say so: API server, engine, worker and tracker."""

from __future__ import annotations

import os
import signal

import pytest

from tests.serving import Serving, eventually, gone
from tests.vllm.loading import load

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

GONE_WITHIN = 15.0


def test_unloaded_is_gone(server: Serving) -> None:
    family = load(server)
    assert server.post("unload", {"model_name": "tiny"}).status_code == 200
    assert [pid for pid in family if not gone(pid)] == []
    assert server.loaded() == {}


def test_a_killed_api_server_takes_its_engine_along(server: Serving) -> None:
    family = load(server)
    os.kill(family[0], signal.SIGKILL)
    eventually(lambda: all(map(gone, family)), "nothing of it is alive", GONE_WITHIN)
    eventually(lambda: server.loaded() == {}, "it is not loaded any more", GONE_WITHIN)
