"""What the server says of the machine and of itself, with the embedded engine at work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import Metric

from lemonade import __version__
from tests.metrics_page import families_of
from tests.serving import Serving, eventually, serving

pytestmark = [pytest.mark.engine, pytest.mark.slow]

CHAT, VECTORS = "Tiny-Lemon-GGUF", "Tiny-Embed-GGUF"
TYPES = {"llm", "embedding", "reranking", "transcription", "image", "tts", "classification"}
LABELS = {"model_name", "checkpoint", "type", "device", "recipe"}


@pytest.fixture
def server(home: Path, engine_bundles: Path) -> Iterator[Serving]:
    with serving(home, bundles=engine_bundles) as one:
        yield one


def page(server: Serving) -> dict[str, Metric]:
    """The metrics page, by family; the parser refuses a page that is not well made."""
    reply = requests.get(f"{server.url}/metrics", timeout=10)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return families_of(reply.text)


def value(family: Metric, **labels: str) -> float:
    (found,) = [s.value for s in family.samples if labels.items() <= s.labels.items()]
    return found


def test_health_of_an_idle_server(server: Serving) -> None:
    assert requests.get(f"{server.url}/live", timeout=10).json() == {"status": "ok"}
    for prefix in ("/api/v0", "/api/v1", "/v0", "/v1"):
        body = requests.get(f"{server.url}{prefix}/health", timeout=10).json()
        assert body["status"] == "ok"
        assert body["version"] == __version__
        assert body["telemetry"] == {"enabled": False}
        assert body["model_loaded"] is None
        assert body["all_models_loaded"] == []
        assert body["max_models"] == dict.fromkeys(TYPES, 1)
        assert body["pinned_models"] == dict.fromkeys(TYPES, 0)
        assert body["pinned_helper_models"] == dict.fromkeys(TYPES, 0)
        assert body["update_check_done"] is True


def test_health_of_a_server_at_work(server: Serving) -> None:
    assert server.post("load", {"model_name": CHAT, "pinned": True}).status_code == 200
    assert server.post("load", {"model_name": VECTORS, "ctx_size": 256}).status_code == 200
    body = server.get("health").json()
    assert body["model_loaded"] == VECTORS, "the one used last"
    assert body["pinned_models"] == {**dict.fromkeys(TYPES, 0), "llm": 1}
    rows = {row["model_name"]: row for row in body["all_models_loaded"]}
    assert set(rows) == {CHAT, VECTORS}
    chat, vectors = rows[CHAT], rows[VECTORS]
    for row in rows.values():
        port = row["launch_command"][row["launch_command"].index("--port") + 1]
        assert row["backend_url"] == f"http://127.0.0.1:{port}/v1"
        command = Path(f"/proc/{row['pid']}/cmdline").read_bytes().split(b"\0")[:-1]
        assert [os.fsencode(word) for word in row["launch_command"]] == command
        assert row["device"] == "cpu"
        assert row["recipe"] == "llamacpp"
        assert row["residency_class"] == "standard"
        assert row["slot_pool"] == f"standard/{row['type']}"
        assert (row["status"], row["backend_health"]) == ("ready", "ready")
        assert row["loaded"] is row["backend_alive"] is True
        assert row["is_busy"] is row["is_streaming"] is row["watchdog_reset"] is False
    assert (chat["type"], chat["pinned"]) == ("llm", True)
    assert (vectors["type"], vectors["pinned"]) == ("embedding", False)
    assert vectors["recipe_options"]["ctx_size"] == 256
    assert chat["last_use"] < vectors["last_use"]
    assert chat["checkpoint"] == "tiny-lemon-Q8_0.gguf"


def test_no_answer_has_a_body_for_head(server: Serving) -> None:
    for path in ("health", "models", "stats", "system-info", "system-stats"):
        reply = requests.head(f"{server.api}/{path}", timeout=10)
        assert (reply.status_code, reply.content) == (200, b""), path
    for path in ("live", "metrics"):
        assert requests.head(f"{server.url}/{path}", timeout=10).status_code == 200


def test_statistics_before_and_after(server: Serving) -> None:
    before = server.get("stats").json()
    assert set(before.values()) == {0}
    assert server.chat(CHAT).status_code == 200
    after = server.get("stats").json()
    assert after.keys() == before.keys()
    assert after["request_count_total"] == 1
    assert after["prompt_tokens"] == after["input_tokens"] > 0
    assert after["output_tokens"] == after["output_tokens_total"] > 0
    assert after["tokens_per_second"] > 0
    assert after["time_to_first_token"] > 0
    refused = server.chat(CHAT, n="many")
    assert refused.status_code == 400
    assert server.get("stats").json()["output_tokens_total"] == after["output_tokens_total"]


def test_how_busy_the_machine_is(server: Serving) -> None:
    def measured() -> dict[str, Any] | None:
        stats: dict[str, Any] = server.get("system-stats").json()
        return None if stats["cpu_percent"] is None else stats

    now = eventually(measured, "the processors' clock ticks between two looks")
    assert set(now) == {"cpu_percent", "memory_gb", "gpu_percent", "vram_gb", "npu_percent"}
    assert 0 <= now["cpu_percent"] <= 100
    assert now["memory_gb"] > 0


def test_metrics(server: Serving) -> None:
    idle = page(server)
    assert value(idle["lemonade_server_up"]) == 1
    assert value(idle["lemonade_server_info"], version=__version__) == 1
    assert value(idle["lemonade_loaded_models"]) == 0
    assert value(idle["lemonade_max_loaded_models"], type="llm") == 1
    assert not idle["lemonade_model_info"].samples, "announced, and nothing to count"
    assert not any(name.startswith("lemonade_llamacpp_") for name in idle)

    for _ in range(2):
        assert server.chat(CHAT).status_code == 200
    assert server.post("embeddings", {"model": VECTORS, "input": "x"}).status_code == 200
    busy = page(server)
    assert value(busy["lemonade_loaded_models"]) == 2
    assert value(busy["lemonade_model_requests_total"], model_name=CHAT) == 2
    assert value(busy["lemonade_model_requests_total"], model_name=VECTORS) == 1
    assert value(busy["lemonade_requests_total"]) == 3
    assert value(busy["lemonade_output_tokens_total"]) > 0
    assert value(busy["lemonade_model_tokens_per_second"], model_name=CHAT) > 0
    for name in ("lemonade_model_info", "lemonade_llamacpp_tokens_predicted_total"):
        for sample in busy[name].samples:
            engine = {"model", "backend"} if "llamacpp" in name else set()
            assert set(sample.labels) == LABELS | engine
            assert sample.labels["recipe"] == "llamacpp"
            assert sample.labels["device"] == "cpu"
        assert {s.labels["model_name"] for s in busy[name].samples} == {CHAT, VECTORS}
    assert value(busy["lemonade_llamacpp_tokens_predicted_total"], model_name=CHAT) > 0

    assert server.post("unload").status_code == 200
    after = page(server)
    assert not after["lemonade_model_info"].samples
    assert value(after["lemonade_requests_total"]) == 3, "totals outlive the models"


def test_the_machine_and_its_recipes(server: Serving) -> None:
    info = server.get("system-info").json()
    for key in ("OS Version", "Processor", "Physical Memory"):
        assert isinstance(info[key], str)
        assert info[key]
    cpu = info["devices"]["cpu"]
    assert cpu["available"] is True
    assert cpu["family"] in ("x86_64", "arm64")
    assert 1 <= cpu["cores"] <= cpu["threads"]
    assert isinstance(info["devices"]["amd_gpu"], list)
    assert isinstance(info["devices"]["nvidia_gpu"], list)
    assert info["no_fetch_executables"] is False
    assert info["cloud"] == {"providers": []}
    storage = info["model_storage"]
    assert 0 < storage["free_bytes"] <= storage["total_bytes"]
    assert "llamacpp" not in info["unavailable_recipes"]
    assert "sd-cpp" in info["unavailable_recipes"]

    recipe = info["recipes"]["llamacpp"]
    assert recipe["default_backend"] == "wheel"
    assert recipe["slot_policy"] == "standard"
    assert recipe["selectable_backend"] is recipe["uses_ctx_size"] is True
    assert recipe["experimental"] is False
    wheel = recipe["backends"]["wheel"]
    assert (wheel["state"], wheel["message"], wheel["action"]) == ("installed", "", "")
    assert wheel["devices"] == ["cpu"]
    assert wheel["can_uninstall"] is True
    assert wheel["release_url"].startswith("https://github.com/")
    offered = {row["backend"]: row for row in recipe["support"]}
    assert offered["wheel"]["os"] == ["linux"]
    options = {option["name"]: option for option in recipe["options"]}
    assert options["llamacpp_args"]["cli_flag"] == "--llamacpp-args"
    assert options["llamacpp_args"]["group"] == "Llama.cpp Backend Options"
    assert options["ctx_size"]["default"] == -1


def test_engines_that_are_installed_and_not_run(home: Path, engine_bundles: Path) -> None:
    with serving(home, bundles=engine_bundles) as server:
        info = server.get("system-info").json()
        assert {"whispercpp", "sd-cpp", "kokoro", "flm"} <= set(info["unavailable_recipes"])
        orders = [recipe["order"] for recipe in info["recipes"].values()]
        assert orders == sorted(orders)
        told = "Lemonade can install stable-diffusion.cpp but does not run it yet."
        recipe = info["recipes"]["sd-cpp"]
        row = recipe["backends"]["cpu"]
        assert (row["state"], row["message"]) == ("installable", told)
        assert row["action"] == "lemonade backends install sd-cpp:cpu"
        assert row["version"] == "master-820-de298c2"
        assert row["release_url"].startswith("https://github.com/")
        assert list(recipe["backends"]) == ["metal", "cuda", "vulkan", "rocm", "cpu"]
        assert recipe["default_backend"] == "cpu"
        assert (recipe["runs"], recipe["modality"]) == (False, "Image generation")
        assert info["recipes"]["flm"]["slot_policy"] == "coexist_by_type"
        assert info["recipes"]["flm"]["selectable_backend"] is False
        options = {option["name"]: option for option in recipe["options"]}
        assert (options["steps"]["default"], options["steps"]["cli_flag"]) == (20, "")
        assert options["sd-cpp_backend"]["cli_flag"] == "--sdcpp"
        assert recipe["uses_ctx_size"] is False

        change = {"sdcpp_steps": 8, "whispercpp": {"cpu_bin": sys.executable}}
        reply = requests.post(f"{server.url}/internal/set", json=change, timeout=10)
        assert reply.json()["updated"]["sdcpp"] == {"steps": 8}
        info = server.get("system-info").json()
        assert info["recipes"]["whispercpp"]["backends"]["cpu"]["state"] == "installed"
        refused = server.post("load", {"model_name": "Whisper-Tiny"})
        assert refused.status_code == 404
        assert "whisper.cpp but does not run it yet" in refused.json()["error"]["message"]
        for setting in (
            {"sdcpp_steps": 0},
            {"sdcpp_backend": "metall"},
            {"kokoro_backend": "cpu"},
        ):
            bad = requests.post(f"{server.url}/internal/set", json=setting, timeout=10)
            assert bad.status_code == 400, setting


def test_a_program_on_path_is_found_and_preferred(home: Path, engine_bundles: Path) -> None:
    programs = home / "programs"
    programs.mkdir()
    program = programs / "llama-server"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def recipe(server: Serving) -> dict[str, Any]:
        found: dict[str, Any] = server.get("system-info").json()["recipes"]["llamacpp"]
        return found

    with serving(home, env=env, bundles=engine_bundles) as server:
        assert recipe(server)["backends"]["system"]["state"] == "installed"
        assert recipe(server)["backends"]["system"]["can_uninstall"] is False
        assert recipe(server)["default_backend"] == "system"
        change = {"llamacpp": {"prefer_system": False}}
        requests.post(f"{server.url}/internal/set", json=change, timeout=10).raise_for_status()
        assert recipe(server)["default_backend"] == "wheel"
        program.unlink()
        there = recipe(server)["backends"]["system"]
        assert there["state"] == "unsupported"
        assert "llama-server is not on PATH" in there["message"]


@pytest.mark.parametrize("pin", ["latest", "~nobody-of-that-name/engine"])
def test_a_pin_that_cannot_be_used_is_said_there_and_hides_nothing(
    server: Serving, pin: str
) -> None:
    changes = {"llamacpp": {"wheel_bin": pin}}
    requests.post(f"{server.url}/internal/set", json=changes, timeout=10).raise_for_status()
    response = server.get("system-info")
    assert response.status_code == 200
    row = response.json()["recipes"]["llamacpp"]["backends"]["wheel"]
    assert row["state"] == "unsupported"
    assert pin in row["message"]
