from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from lemonade.core.bus import Bus
from lemonade.telemetry import HostLoad, LoadedModel, Metrics, Statistics
from tests.unit.telemetry.test_statistics import FIRST, finished

MODEL = LoadedModel('a "b"', "org/repo:Q4", "llm", "cpu", "some")


def page(*, host: HostLoad | None = None) -> str:
    bus = Bus()
    statistics = Statistics(bus)
    bus.publish(finished('a "b"', FIRST))
    bus.publish(finished("unloaded", FIRST))
    return Metrics(statistics, version="1.2.3").render([MODEL], host, {"llm": 1, "embedding": -1})


def test_the_page_is_prometheus_text_with_the_documented_names() -> None:
    families = {family.name: family for family in text_string_to_metric_families(page())}
    assert {
        "lemonade_server_up",
        "lemonade_server_info",
        "lemonade_loaded_models",
        "lemonade_max_loaded_models",
        "lemonade_model_info",
        "lemonade_model_loaded",
        "lemonade_model_input_tokens",
        "lemonade_model_output_tokens",
        "lemonade_model_prompt_tokens",
        "lemonade_model_cache_tokens",
        "lemonade_model_time_to_first_token_seconds",
        "lemonade_model_tokens_per_second",
        "lemonade_model_requests",
        "lemonade_requests",
        "lemonade_input_tokens",
        "lemonade_output_tokens",
        "lemonade_prompt_tokens",
        "lemonade_cache_tokens",
        "lemonade_routing_decisions",
        "lemonade_routing_switches",
        "lemonade_cpu_usage_percent",
        "lemonade_memory_used_gb",
        "lemonade_gpu_usage_percent",
        "lemonade_vram_used_gb",
        "lemonade_npu_usage_percent",
    } <= set(families)


def test_values_and_labels() -> None:
    lines = page(host=HostLoad(cpu_percent=12.5, memory_bytes=3 << 29)).splitlines()
    labels = (
        'checkpoint="org/repo:Q4",device="cpu",model_name="a \\"b\\"",recipe="some",type="llm"'
    )
    for line in (
        "lemonade_server_up 1.0",
        'lemonade_server_info{version="1.2.3"} 1.0',
        "lemonade_loaded_models 1.0",
        'lemonade_max_loaded_models{type="embedding"} -1.0',
        f"lemonade_model_requests_total{{{labels}}} 1.0",
        f"lemonade_model_input_tokens_total{{{labels}}} 7.0",
        f"lemonade_model_input_tokens{{{labels}}} 7.0",
        f"lemonade_model_time_to_first_token_seconds{{{labels}}} 0.25",
        "lemonade_requests_total 2.0",
        "lemonade_output_tokens_total 68.0",
        "lemonade_cpu_usage_percent 12.5",
        "lemonade_memory_used_gb 1.5",
    ):
        assert line in lines, line


def test_what_is_unknown_has_no_samples_but_is_announced() -> None:
    lines = page().splitlines()
    assert "# TYPE lemonade_npu_usage_percent gauge" in lines
    assert not [line for line in lines if line.startswith("lemonade_npu_usage_percent")]
