"""Changing settings while the server runs: all or nothing, and only what differs is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lemonade.config import extra_models
from lemonade.core.errors import BadSetting, UnknownSetting


def test_a_change_is_in_force_and_kept(load, config_file):
    live = load()
    before = live.settings
    updated, message = live.update({"max_loaded_models": 2, "brew": {"args": "-x"}}, persist=True)
    assert updated == {"max_loaded_models": 2, "brew": {"args": "-x"}}
    assert message == ""
    assert live.settings.max_loaded_models == 2
    assert before.max_loaded_models == 1, "who holds the former settings keeps them"
    assert json.loads(config_file.read_text()) == {
        "config_version": 2,
        "max_loaded_models": 2,
        "brew": {"args": "-x"},
    }
    assert load().snapshot() == live.snapshot()


def test_going_back_to_the_default_removes_the_key(load, config_file):
    live = load()
    live.update({"ctx_size": 8192, "brew": {"args": "-x"}, "offline": True}, persist=True)
    live.update({"brew": {"args": ""}}, persist=True)
    assert json.loads(config_file.read_text()) == {
        "config_version": 2,
        "ctx_size": 8192,
        "offline": True,
    }
    live.update({"ctx_size": -1, "offline": False}, persist=True)
    assert json.loads(config_file.read_text()) == {}


def test_pruning_looks_at_the_site_defaults_too(load, config_file, tmp_path):
    site = tmp_path / "site.json"
    site.write_text('{"ctx_size": 1024}')
    environ = {"LEMONADE_DEFAULTS_PATH": str(site)}
    live = load(environ=environ)
    live.update({"ctx_size": -1}, persist=True)
    assert json.loads(config_file.read_text())["ctx_size"] == -1
    assert load(environ=environ).settings.ctx_size == -1


def test_a_chosen_4096_survives_the_next_start(load):
    load().update({"ctx_size": 4096}, persist=True)
    assert load().settings.ctx_size == 4096


def test_what_is_not_to_be_kept_is_not(load, config_file):
    live = load()
    live.update({"ctx_size": 2048}, persist=False)
    assert live.settings.ctx_size == 2048
    assert live.origins["ctx_size"] == "api"
    live.update({"offline": True}, persist=True)
    assert json.loads(config_file.read_text()) == {"config_version": 2, "offline": True}
    assert load().settings.ctx_size == -1
    live.update({"ctx_size": -1}, persist=True)
    assert live.settings.ctx_size == -1, "what is kept replaces what was not"


ALIASES = [
    ({"brew_args": "-x"}, {"brew": {"args": "-x"}}, ""),
    ({"brew_rocm_args": "-x"}, {"brew": {"rocm_args": "-x"}}, ""),
    ({"brew_cfg_scale": 3.5}, {"brew": {"cfg_scale": 3.5}}, ""),
    ({"brew_backend": "cpu"}, {"brew": {"backend": "cpu"}}, ""),
    ({"brew_args": "-x", "brew": {"steps": 3}}, {"brew": {"args": "-x", "steps": 3}}, ""),
    ({"brew_args": "-x", "brew": {"args": "-x"}}, {"brew": {"args": "-x"}}, ""),
    ({"no_broadcast": True}, {"broadcast": False}, ""),
    ({"rocm": "nightly"}, {"rocm_channel": "nightly"}, ""),
    ({"rocm_channel": "preview"}, {"rocm_channel": "stable"}, "'preview' is called 'stable'"),
    ({"rocm": "preview"}, {"rocm_channel": "stable"}, "'preview' is called 'stable'"),
    ({"brew": {"cpu_bin": "b123"}}, {"brew": {"cpu_bin": "b123"}}, ""),
    ({"brew": {"system_bin": "latest"}}, {"brew": {"system_bin": "latest"}}, ""),
    ({"websocket_port": 0}, {"websocket_port": 0}, ""),
]


@pytest.mark.parametrize(("changes", "updated", "message"), ALIASES, ids=str)
def test_spellings(load, changes, updated, message):
    found, told = load().update(changes, persist=True)
    assert found == updated
    assert message in told


UNKNOWN = [
    ({"prot": 80}, "prot", "port"),
    ({"max_loaded_model": 2}, "max_loaded_model", "max_loaded_models"),
    ({"ctx-size": 2}, "ctx-size", "ctx_size"),
    ({"brew_agrs": ""}, "brew.agrs", "brew.args"),
    ({"brew": {"bakcend": "cpu"}}, "brew.bakcend", "brew.backend"),
    ({"brew": {"vulkan_bin": "b1"}}, "brew.vulkan_bin", "brew.rocm_bin"),
    ({"tea": {"backend": "auto"}}, "tea.backend", "brew.backend"),
    ({"telemetry": {"enabeld": True}}, "telemetry.enabeld", "telemetry.enabled"),
    ({"telemetry": {"otlp": {"x": 1}}}, "telemetry.otlp.x", ""),
    ({"cloud_providers": []}, "cloud_providers", ""),
    ({"_unheard": 1}, "_unheard", ""),
    ({"sections": {}}, "sections", ""),
    ({"": 1}, "", ""),
]


@pytest.mark.parametrize(("changes", "key", "near"), UNKNOWN, ids=str)
def test_unknown_keys_are_refused(load, config_file, changes, key, near):
    live = load()
    before = live.snapshot()
    with pytest.raises(UnknownSetting) as caught:
        live.update({"ctx_size": 1024, **changes}, persist=True)
    assert f"Unknown config key: '{key}'" in caught.value.message
    assert near in caught.value.remedy
    assert live.snapshot() == before
    assert not config_file.exists()


BAD = [
    {},
    [],
    None,
    "port",
    {"port": "80"},
    {"port": 65536},
    {"port": 0},
    {"host": None},
    {"brew": "x"},
    {"brew": None},
    {"brew": {"backend": "metal"}},
    {"brew": {"cpu_bin": "/no/such/executable"}},
    {"brew": {"lora_dir": "/no/such/folder"}},
    {"brew_args": "-x", "brew": {"args": "-y"}},
    {"brew_args": "-x", "brew": []},
    {"no_broadcast": True, "broadcast": True},
    {"no_broadcast": "yes"},
    {"rocm": "nightly", "rocm_channel": "stable"},
    {"telemetry": []},
    {"telemetry": {"otlp": {"send_batch_size": 0}}},
    {"extra_models_dir": 5},
    {"extra_models_dir": "/dev/null"},
    {"config_version": 0},
]


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_bad_values_change_nothing(load, config_file, changes):
    live = load()
    before = live.snapshot()
    with pytest.raises(BadSetting) as caught:
        live.update(changes, persist=True)
    assert "config.json" not in caught.value.message, "the client said it, not the file"
    assert live.snapshot() == before
    assert not config_file.exists()


def test_one_bad_value_stops_the_good_ones(load, config_file):
    live = load()
    with pytest.raises(BadSetting):
        live.update({"ctx_size": 1024, "port": -1}, persist=True)
    assert live.settings.ctx_size == -1
    assert not config_file.exists()


def test_paths_that_are_there_are_taken(load, tmp_path):
    program = tmp_path / "engine"
    program.write_text("")
    live = load()
    live.update(
        {"brew": {"cpu_bin": str(program)}, "extra_models_dir": str(tmp_path)}, persist=True
    )
    assert live.binary_pin("brew", "cpu") == str(program)
    live.update({"extra_models_dir": str(tmp_path / "later")}, persist=True)


def test_a_path_that_has_gone_does_not_stop_the_start(load):
    live = load({"brew": {"cpu_bin": "/no/such/engine"}, "extra_models_dir": "/dev/null"})
    assert live.binary_pin("brew", "cpu") == "/no/such/engine"


def test_the_command_line_stays_above(load, config_file):
    live = load(port=9000)
    _, message = live.update({"port": 8000}, persist=True)
    assert live.settings.port == 9000
    assert "port stays as the command line says" in message
    assert json.loads(config_file.read_text())["port"] == 8000
    assert load().settings.port == 8000


def test_a_flag_is_not_written_down(load, config_file):
    live = load(port=9000)
    live.update({"offline": True}, persist=True)
    assert "port" not in json.loads(config_file.read_text())


def test_broadcast_can_be_switched_whatever_was_started(load):
    live = load(broadcast=False)
    live.update({"broadcast": True}, persist=False)
    assert live.settings.broadcast


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ctx_size": 1024}, ""),
        ({"brew": {"args": "-x"}}, ""),
        ({"port": 8000, "host": "0.0.0.0"}, "To be felt at the next start: port, host."),
        ({"telemetry": {"enabled": True}}, "nothing in this version follows from it"),
    ],
)
def test_what_is_not_felt_at_once_is_told(load, change, told):
    _, message = load().update(change, persist=True)
    assert told in message
    assert bool(told) == bool(message)


def test_headers_are_replaced_as_a_whole(load):
    live = load()
    live.update({"telemetry": {"otlp": {"headers": {"a": "1"}}}}, persist=True)
    live.update({"telemetry": {"otlp": {"headers": {"b": "2"}}}}, persist=True)
    assert live.settings.telemetry.otlp.headers == {"b": "2"}


def test_a_file_that_cannot_be_written_is_told(load, config_file, caplog):
    live = load()
    config_file.mkdir()  # nothing can replace a folder
    _, message = live.update({"ctx_size": 1024}, persist=True)
    assert "could not be saved" in message
    assert live.settings.ctx_size == 1024
    assert "not saved" in caplog.text


def test_what_another_server_wrote_meanwhile_stays(load):
    one, other = load(), load()
    one.update({"max_loaded_models": 3}, persist=True)
    other.update({"ctx_size": 2048}, persist=True)
    both = load().settings
    assert (both.max_loaded_models, both.ctx_size) == (3, 2048)


def test_what_somebody_wrote_by_hand_meanwhile_stays(load, config_file):
    live = load({"ctx_size": 2048, "max_loaded_models": 3})
    config_file.write_text('{"ctx_size": 1024, "somebody": "else"}')
    live.update({"offline": True}, persist=True)
    kept = json.loads(config_file.read_text())
    assert kept == {"config_version": 2, "ctx_size": 1024, "offline": True, "somebody": "else"}
    assert live.settings.ctx_size == 1024


def test_a_file_that_is_gone_is_written_from_memory(load, config_file):
    live = load({"ctx_size": 2048})
    config_file.unlink()
    live.update({"offline": True}, persist=True)
    assert load().settings.ctx_size == 2048


@pytest.mark.parametrize(
    "changes",
    [
        {"brew": {"cpu_bin": "/" + 300 * "x"}},
        {"brew": {"lora_dir": "/" + 300 * "x"}},
        {"extra_models_dir": "/" + 300 * "x"},
        {"extra_models_dir": "/models/\0"},
        {"brew": {"args": "--temp \0"}},
    ],
)
def test_what_no_path_can_be_is_refused(load, changes):
    with pytest.raises(BadSetting):
        load().update(changes, persist=False)


def test_a_home_that_nobody_has_is_a_folder_that_is_not_there(load):
    live = load()
    live.update({"extra_models_dir": "~nobody-of-that-name/models"}, persist=False)
    assert extra_models(live.settings) == Path("~nobody-of-that-name/models").absolute()
