"""The metrics of engines on our page: two of vLLM's kind, some that fail, and a genuine one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client import Metric

from tests.gateway.vllm_like import vllm_like_catalog
from tests.metrics_page import families_of
from tests.serving import Serving, serving, survivors

pytestmark = [pytest.mark.engine, pytest.mark.slow]

GENUINE = "Tiny-Lemon-GGUF"
PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="NAME"} 1.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="NAME"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="NAME"} 4.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="NAME"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="NAME"} 0.5
# HELP python_info Python platform information.
# TYPE python_info gauge
python_info{implementation="CPython",version="3.12"} 1.0
# TYPE lemonade_loaded_models histogram
lemonade_loaded_models_bucket{le="+Inf"} 4.0
"""
COUNTED = {"vllm:num_requests_running", "vllm:time_to_first_token_seconds", "python_info"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("metrics")
    pages = {name: home / f"{name}.txt" for name in ("one", "two", "endless")}
    for name, page in pages.items():
        page.write_text(PAGE.replace("NAME", name))
    pages["endless"].write_text(PAGE * 2000)
    args = {name: f"--metrics {page}" for name, page in pages.items()}
    args |= {"silent": "--metrics -", "without": ""}
    catalog = vllm_like_catalog(home, args)
    env, config = {"LEMONADE_CATALOG": str(catalog)}, {"max_loaded_models": 6}
    with serving(home, env=env, config=config, bundles=engine_bundles) as one:
        yield one
        assert "Traceback" not in one.log()
    assert not survivors(home)


def page(server: Serving) -> dict[str, Metric]:
    reply = requests.get(f"{server.url}/metrics", timeout=20)
    assert reply.status_code == 200
    return families_of(reply.text)


def of(family: Metric) -> dict[str, float]:
    return {sample.labels["model_name"]: sample.value for sample in family.samples}


def test_engines_on_one_page(server: Serving) -> None:
    for name in ("one", "two", "endless", "silent", "without", GENUINE):
        assert server.post("load", {"model_name": name}).status_code == 200, name
    assert server.chat(GENUINE).status_code == 200
    first, second = page(server), page(server)
    for families in (first, second):
        assert {name for name in families if not name.startswith("lemonade_")} == COUNTED
        running = families["vllm:num_requests_running"].samples
        assert [sample.labels for sample in running] == [
            {"model": name, "backend": "fake:program", "engine": "0", "model_name": name}
            for name in ("one", "two")
        ]
        assert len(families["vllm:time_to_first_token_seconds"].samples) == 8
        assert len(families["lemonade_loaded_models"].samples) == 1
        (genuine,) = families["lemonade_llamacpp_tokens_predicted_total"].samples
        assert genuine.value > 0
        (decoded,) = families["lemonade_llamacpp_n_decode_total"].samples
        assert decoded.value > 0, "its recipe takes it for a sign of work"
        assert genuine.labels["model"] == genuine.labels["model_name"] == GENUINE
        assert genuine.labels["backend"].startswith("llamacpp:")
        assert of(families["lemonade_model_scraped"]) == {
            "one": 1,
            "two": 1,
            GENUINE: 1,
            "endless": 0,
            "silent": 0,
            "without": 0,
        }
    assert of(first["lemonade_model_scrape_failures_total"])["silent"] == 1
    assert of(second["lemonade_model_scrape_failures_total"]) == {
        "one": 0,
        "two": 0,
        GENUINE: 0,
        "endless": 2,
        "silent": 2,
        "without": 2,
    }
