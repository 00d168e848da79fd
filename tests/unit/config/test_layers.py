"""Who decides a setting, and what is wrong with a file that decides badly."""

from __future__ import annotations

import json
import logging

import pytest

from lemonade.core.errors import BadConfigFile, BadSetting


def test_starting_writes_nothing(load, config_file):
    settings = load().settings
    assert (settings.port, settings.max_loaded_models) == (13305, 1)
    assert settings.section("brew")["threads"] == 4
    assert not config_file.exists()


def test_each_layer_covers_the_ones_below(load, tmp_path):
    site = tmp_path / "site.json"
    site.write_text(
        json.dumps({"port": 1, "ctx_size": 1024, "max_loaded_models": 2, "brew": {"args": "-s"}})
    )
    live = load(
        {"port": 2, "ctx_size": 2048, "config_version": 2},
        environ={"LEMONADE_DEFAULTS_PATH": str(site)},
        port=3,
        host=None,
    )
    assert (live.settings.port, live.settings.ctx_size) == (3, 2048)
    assert live.settings.max_loaded_models == 2
    assert live.settings.section("brew")["args"] == "-s"
    assert live.origins["port"] == "flag"
    assert live.origins["ctx_size"] == f"file {live.file}"
    assert live.origins["max_loaded_models"] == f"file {site}"
    assert live.origins["brew.args"] == f"file {site}"
    assert live.origins["host"] == live.origins["telemetry.otlp.max_retries"] == "default"
    assert live.defaults()["port"] == 13305


def test_every_setting_has_an_origin(load):
    live = load()
    assert set(live.origins.values()) == {"default"}
    assert "telemetry.session.headers.id" in live.origins


def test_dotted_overrides(load):
    live = load(**{"brew.args": "-x", "telemetry.otlp.max_retries": 3})
    assert live.settings.section("brew")["args"] == "-x"
    assert live.settings.telemetry.otlp.max_retries == 3


@pytest.mark.parametrize(("value", "level"), [("1", "debug"), ("true", "debug"), ("no", "info")])
def test_ci_mode(load, value, level):
    assert load(environ={"LEMONADE_CI_MODE": value}).settings.log_level == level


def test_a_flag_beats_ci_mode(load):
    assert load(environ={"LEMONADE_CI_MODE": "1"}, log_level="error").settings.log_level == "error"


BAD_FILES = [
    ({"port": "80"}, "port", "integer"),
    ({"port": True}, "port", "integer"),
    ({"port": 80.5}, "port", "integer"),
    ({"port": 0}, "port", "from 1 to 65535"),
    ({"port": -1}, "port", "greater than or equal to 0"),
    ({"port": None}, "port", "integer"),
    ({"broadcast": 1}, "broadcast", "boolean"),
    ({"broadcast": "yes"}, "broadcast", "boolean"),
    ({"host": ""}, "host", "at least 1 character"),
    ({"log_level": "loud"}, "log_level", "'trace', 'debug', 'info'"),
    ({"websocket_port": "any"}, "websocket_port", '"auto" or a port'),
    ({"websocket_port": True}, "websocket_port", '"auto" or a port'),
    ({"max_loaded_models": 0}, "max_loaded_models", "-1 or at least 1"),
    ({"max_loaded_models": -2}, "max_loaded_models", "greater than or equal to -1"),
    ({"ctx_size": -2}, "ctx_size", "-1"),
    ({"global_timeout": 0}, "global_timeout", "greater than 0"),
    ({"auto_evict_threshold_pct": 1.5}, "auto_evict_threshold_pct", "less than or equal to 1"),
    ({"telemetry": 5}, "telemetry", "TelemetrySettings"),
    ({"crash": {"failures": -1}}, "crash.failures", "greater than or equal to 0"),
    ({"crash": {"backoff_jitter": 2}}, "crash.backoff_jitter", "less than or equal to 1"),
    ({"limits": {"max_open_files": 15}}, "limits.max_open_files", "at least 16"),
    ({"limits": {"nice": 20}}, "limits.nice", "less than or equal to 19"),
    ({"limits": {"cpus": "0-3;8"}}, "limits.cpus", "0-3,8"),
    ({"limits": {"cpus": "3-1"}}, "limits.cpus", "is no range"),
    ({"limits": {"max_memory": "much"}}, "limits.max_memory", "24GiB"),
    ({"limits": {"max_memory": "1 MiB"}}, "limits.max_memory", "16 MiB"),
    ({"hang": {"watch": 1}}, "hang.watch", "boolean"),
    ({"hang": {"idle_s": 0}}, "hang.idle_s", "greater than 0"),
    ({"telemetry": {"otlp": {"protocol": "smoke"}}}, "telemetry.otlp.protocol", "http/json"),
    ({"telemetry": {"otlp": {"headers": {"a": 1}}}}, "telemetry.otlp.headers.a", "string"),
    ({"telemetry": {"session": {"headers": {"id": 1}}}}, "telemetry.session.headers.id", "list"),
    ({"brew": []}, "brew", "object of settings"),
    ({"brew": {"backend": "metal"}}, "brew.backend", "no such backend"),
    ({"brew": {"args": ["-x"]}}, "brew.args", "string"),
    ({"brew": {"rocm_args": 1}}, "brew.rocm_args", "string"),
    ({"brew": {"cpu_bin": None}}, "brew.cpu_bin", "string"),
    ({"brew": {"device": 0}}, "brew.device", "string"),
    ({"brew": {"prefer_system": "true"}}, "brew.prefer_system", "true or false"),
    ({"brew": {"steps": 0}}, "brew.steps", "above 0"),
    ({"brew": {"steps": True}}, "brew.steps", "above 0"),
    ({"brew": {"cfg_scale": "7"}}, "brew.cfg_scale", "above 0"),
    ({"brew": {"lora_dir": "here"}}, "brew.lora_dir", "absolute"),
    ({"brew": {"threads": "4"}}, "brew.threads", "whole number"),
    ({"brew": {"threads": True}}, "brew.threads", "true or false"),
    ({"brew": {"ratio": "half"}}, "brew.ratio", "number"),
    ({"brew": {"greeting": 1}}, "brew.greeting", "string"),
    ({"brew": {"loud": 1}}, "brew.loud", "true or false"),
]


@pytest.mark.parametrize(
    ("content", "key", "reason"), BAD_FILES, ids=[json.dumps(c) for c, *_ in BAD_FILES]
)
def test_a_wrong_value_stops_the_start(load, content, key, reason):
    with pytest.raises(BadSetting) as caught:
        load(content)
    assert f"'{key}' in " in caught.value.message
    assert "config.json" in caught.value.message
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_a_wrong_flag_names_the_command_line(load):
    with pytest.raises(BadSetting, match="'port' on the command line cannot be 70000"):
        load(port=70000)


def test_the_command_line_may_ask_for_any_free_port(load):
    live = load(port=0)
    assert live.settings.port == 0
    live.update({"ctx_size": 1024}, persist=True)
    assert live.settings.port == 0


def test_unknown_keys_in_the_file_are_kept_and_told(load, config_file, caplog):
    content = {
        "config_version": 2,
        "prot": 80,
        "later": {"deep": [1]},
        "brew": {"stpes": 3, "steps": 4},
        "telemetry": {"enabeld": True},
        "_generated": "note",
    }
    with caplog.at_level(logging.WARNING):
        live = load(content)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert any("'prot'" in line and "Did you mean port" in line for line in told)
    assert any("'brew.stpes'" in line and "brew.steps" in line for line in told)
    live.update({"brew": {"steps": 5}}, persist=True)
    assert json.loads(config_file.read_text()) == content | {"brew": {"stpes": 3, "steps": 5}}


@pytest.mark.parametrize("content", ["", "{", "[]", "nonsense"])
def test_a_broken_file_is_put_aside(load, config_file, caplog, content):
    with caplog.at_level(logging.WARNING):
        assert load(content).settings.port == 13305
    assert config_file.with_name("config.json.corrupted").read_text() == content
    assert not config_file.exists()


def test_a_broken_site_file_is_told_and_left_alone(load, tmp_path):
    site = tmp_path / "site.json"
    site.write_text("{")
    with pytest.raises(BadConfigFile, match=r"site\.json cannot be used"):
        load(environ={"LEMONADE_DEFAULTS_PATH": str(site)})
    assert site.read_text() == "{"


def test_a_site_file_that_is_not_there_is_fine(load):
    load(environ={"LEMONADE_DEFAULTS_PATH": "/no/such/file"})


def test_the_former_default_context_is_migrated_once(load, config_file, caplog):
    with caplog.at_level(logging.WARNING):
        assert load({"ctx_size": 4096, "port": 80}).settings.ctx_size == -1
    assert "former default" in caplog.text
    assert json.loads(config_file.read_text()) == {
        "ctx_size": -1,
        "port": 80,
        "config_version": 2,
    }
    assert load({"ctx_size": 4096, "config_version": 2}).settings.ctx_size == 4096


def test_no_broadcast_is_read_the_other_way_round(load, config_file):
    assert load({"no_broadcast": True}).settings.broadcast is False
    assert json.loads(config_file.read_text()) == {"broadcast": False, "config_version": 2}


PINS = [
    ({}, {}, "cpu", "builtin"),
    ({"cpu_bin": "latest"}, {}, "cpu", "latest"),
    ({"cpu_bin": ""}, {}, "cpu", "builtin"),
    ({"cpu_bin": "b1"}, {"LEMONADE_BREW_CPU_BIN": "/opt/x"}, "cpu", "/opt/x"),
    ({"cpu_bin": "b1"}, {"LEMONADE_BREW_CPU_BIN": ""}, "cpu", "b1"),
    ({"rocm_bin": "b2"}, {}, "rocm-stable", "b2"),
    ({}, {"LEMONADE_BREW_ROCM_BIN": "b3"}, "rocm-nightly", "b3"),
    ({}, {}, "unheard-of", "builtin"),
]


@pytest.mark.parametrize(("section", "environ", "variant", "pin"), PINS)
def test_binary_pin(load, section, environ, variant, pin):
    assert load({"brew": section}, environ=environ).binary_pin("brew", variant) == pin
