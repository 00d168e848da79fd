"""The lives of engines on `/metrics`, from a server that lived through them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import PATIENCE, Serving, eventually, fake_catalog, fake_model, serving

OWNER = {"model": "one", "backend": "fake:program"}


def values(server: Serving) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = requests.get(f"{server.url}/metrics", timeout=PATIENCE).text
    return {
        family.name.removeprefix("lemonade_"): [
            (dict(sample.labels), sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        ]
        for family in text_string_to_metric_families(text)
    }


def test_a_life_in_numbers(home: Path) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "one")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert server.chat("one").status_code == 200
        os.kill(server.loaded()["one"]["pid"], signal.SIGKILL)
        eventually(lambda: not server.loaded(), "it is gone")
        assert server.chat("one").status_code == 200
        server.post("unload")
        found = values(server)
    assert found["child_starts"] == found["loads"] == [(OWNER, 2.0)]
    assert found["child_restarts"] == found["child_stops"] == [(OWNER, 1.0)]
    assert found["child_crashes"] == [({**OWNER, "how": "signal"}, 1.0)]
    phases = {labels["phase"]: value for labels, value in found["load_seconds"]}
    assert set(phases) == {"prepare", "start"}
    assert min(phases.values()) >= 0
    freed = {labels["kind"]: value for labels, value in found["memory_freed_bytes"]}
    assert freed["main"] > 1 << 20
