"""What commands print when nobody looks: the shapes that scripts read."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli, Server, stand_in_process


def test_status_names_port_limits_and_models(cli: Cli, server: Server) -> None:
    done = cli("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"Server is running on port {server.port}",
        "",
        "Property            Value",
        "-" * 50,
        "Version             11.7.0",
        "WebSocket Port      41233",
        "Max Models/Type     1",
        "",
        "Model                         Type      Device    Recipe        Checkpoint",
        "-" * 100,
        "Demo-1B-GGUF (pinned)         llm       gpu       llamacpp      acme/Demo-1B-GGUF:Q4_K_M",
    ]


def test_status_says_that_nothing_is_loaded(cli: Cli, server: Server) -> None:
    server.reset(loaded=[])
    assert cli("status").stdout.endswith("\nNo models loaded.\n")


def test_status_for_scripts_is_the_port(cli: Cli, server: Server) -> None:
    done = cli("status", "--json")
    assert done.stdout == f'{{"port":{server.port}}}\n'
    assert done.returncode == 0


def test_status_without_a_server_is_a_failure(lonely: Cli) -> None:
    for words in (["status"], ["status", "--json"]):
        done = lonely(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Server is not running" in done.stderr


def test_list_has_a_local_and_an_available_section(cli: Cli) -> None:
    done = cli("list")
    dashes = "-" * 100
    header = "Model Name                              Downloaded     Size (GB)      Details"
    assert done.stdout.splitlines() == [
        "Local",
        header,
        dashes,
        "extra.Alpha-GGUF                        Yes                 N/A       llamacpp",
        "Demo-1B-GGUF                            Yes                0.84       llamacpp",
        dashes,
        "",
        "Available for Download",
        header,
        dashes,
        "Demo-Omni                               No               > 1.50       collection.omni",
        "Far-2B-GGUF                             No                 1.50       llamacpp",
        dashes,
    ]


def test_list_of_the_downloaded_has_no_sections(cli: Cli, server: Server) -> None:
    lines = cli("list", "--downloaded").stdout.splitlines()
    assert "Local" not in lines
    assert "Available for Download" not in lines
    assert server.asked("/models")[0]["query"] == {"show_all": "false"}
    server.reset(models=[])
    assert cli("list", "--downloaded").stdout == "No local models downloaded.\n"
    assert cli("list").stdout == "No models available\n"


def test_list_filters_by_a_part_of_the_name(cli: Cli) -> None:
    found = json.loads(cli("list", "--json", "f*gguf").stdout)
    assert [model["id"] for model in found] == ["Far-2B-GGUF"]
    assert "No models match 'a.b'." in cli("list", "a.b").stdout
    assert [m["id"] for m in json.loads(cli("list", "alpha", "--json").stdout)] == [
        "extra.Alpha-GGUF"
    ]


def test_ps_names_the_engine_of_each_model(cli: Cli, server: Server) -> None:
    lines = cli("ps").stdout.splitlines()
    assert lines[0].split() == [
        "Model", "Type", "Backend", "PID", "Port", "State", "Pinned", "Last", "Use"
    ]  # fmt: skip
    assert lines[2].split()[:7] == [
        "Demo-1B-GGUF", "llm", "llamacpp:vulkan", "4321", "41234", "ready", "yes"
    ]  # fmt: skip
    assert json.loads(cli("ps", "--json").stdout)[0]["pid"] == 4321
    server.reset(loaded=[])
    assert cli("ps").stdout == "No models loaded.\n"


def test_backends_hides_what_cannot_run_here(cli: Cli) -> None:
    lines = cli("backends").stdout.splitlines()
    assert lines[0].split() == ["Recipe", "Backend", "Status", "Message/Version", "Action"]
    assert lines[1] == "-" * 148
    assert lines[2].split() == ["llamacpp", "vulkan", "installed", "b10375", "-"]
    assert lines[3].startswith(" " * 20 + "cpu         installable")
    assert lines[3].endswith("lemonade backends install llamacpp:cpu")
    assert lines[4].startswith("vllm                cpu         update_required ")
    assert len(lines) == 5
    everything = cli("recipes", "--all").stdout
    assert "flm" in everything
    assert "No supported GPU." in everything
    assert "Join the group render." in everything
    assert everything.splitlines()[-2:] == [
        "vllm:rocm was refused because of",
        "  /dev/kfd: mode 0660, group render",
    ]
    assert "/dev/kfd" not in "".join(lines)
    assert json.loads(cli("backends", "--json").stdout)["llamacpp"]["default_backend"] == "vulkan"


def test_backends_are_installed_and_removed(cli: Cli, server: Server) -> None:
    done = cli("backends", "install", "llamacpp:cpu", "--force")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "Installing backend: llamacpp:cpu"
    assert done.stdout.splitlines()[-1] == "Backend installed successfully: llamacpp:cpu"
    assert server.asked("/install")[0]["body"] == {
        "recipe": "llamacpp",
        "backend": "cpu",
        "force": True,
        "stream": True,
    }
    done = cli("backends", "uninstall", "llamacpp:cpu")
    assert "Backend uninstalled successfully: llamacpp:cpu" in done.stdout
    assert server.asked("/uninstall")[0]["body"] == {"recipe": "llamacpp", "backend": "cpu"}


def test_a_backend_that_is_set_up_by_hand_says_how(cli: Cli) -> None:
    done = cli("backends", "install", "flm:npu")
    assert done.returncode == 1
    assert "https://example.invalid/npu.html" in done.stderr


def test_config_shows_sections(cli: Cli) -> None:
    assert cli("config").stdout.splitlines() == [
        "Server Configuration",
        "-" * 34,
        "  [General]",
        "  ctx_size                 -1",
        "  extra_models_dir         (empty)",
        "  offline                  false",
        "  [llamacpp]",
        "  llamacpp.args            (empty)",
        "  llamacpp.backend         auto",
        "  [telemetry]",
        "  telemetry.enabled        false",
        '  telemetry.otlp           {"batch_timeout_s":1.0}',
        "  [vllm]",
        "  vllm.args                (empty)",
        "  vllm.backend             auto",
    ]
    assert json.loads(cli("config", "--json").stdout)["ctx_size"] == -1


def test_config_set_sends_one_nested_document(cli: Cli, server: Server) -> None:
    done = cli(
        "config", "set", "vllm_args=--max-num-seqs 128", "telemetry.enabled=true", "ctx-size=8"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Noted.\n{")
    assert server.asked("/internal/set")[0]["body"] == {
        "vllm_args": "--max-num-seqs 128",
        "telemetry": {"enabled": True},
        "ctx_size": 8,
    }
    assert "vllm.args                --max-num-seqs 128" in cli("config").stdout


def test_config_set_of_an_unknown_key_shows_the_servers_sentence(cli: Cli) -> None:
    done = cli("config", "set", "nonsense=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Error: Unknown config key: 'nonsense'",
        "Nothing was changed.",
    ]


def test_load_sends_what_was_typed_and_nothing_else(cli: Cli, server: Server) -> None:
    done = cli(
        "load", "Demo-1B-GGUF", "--ctx-size", "4096", "--llamacpp-args", "-t 1", "--pinned",
        "--no-merge-args", "--save-options", "--hang-timeout", "9", "--no-watch-hangs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Model loaded successfully: Demo-1B-GGUF"
    assert server.asked("/load")[0]["body"] == {
        "model_name": "Demo-1B-GGUF",
        "save_options": True,
        "pinned": True,
        "ctx_size": 4096,
        "llamacpp_args": "-t 1",
        "merge_args": False,
        "hang_timeout": 9.0,
        "watch_hangs": False,
        "stream": True,
    }
    server.reset()
    reply = json.loads(cli("load", "extra.Alpha-GGUF", "--json").stdout)
    assert reply["status"] == "success"
    assert server.asked("/load")[0]["body"] == {
        "model_name": "extra.Alpha-GGUF",
        "save_options": False,
        "stream": True,
    }


def test_load_warns_where_every_place_is_pinned(cli: Cli) -> None:
    done = cli("load", "extra.Alpha-GGUF")
    assert "all 1 places for models of type llm are pinned" in done.stderr
    assert cli("load", "Demo-1B-GGUF").stderr == ""


def test_load_fetches_model_and_engine_first(cli: Cli, server: Server) -> None:
    done = cli("load", "Far-2B-GGUF", "--llamacpp", "cpu")
    assert done.returncode == 0
    said = done.stdout.splitlines()
    steps = [
        "Pulling model: Far-2B-GGUF",
        "Installing backend: llamacpp:cpu",
        "Loading model: Far-2B-GGUF",
    ]
    assert [line for line in said if line in steps] == steps
    assert server.asked("/pull")[0]["body"]["do_not_upgrade"] is True


def test_a_failed_load_shows_the_servers_sentence(cli: Cli) -> None:
    done = cli("load", "Broken-here")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: Failed to load model: it died."
    done = cli("load", "Nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: There is no model 'Nothing'.\n"


def test_an_unload_tells_who_still_holds_what(cli: Cli, server: Server) -> None:
    kept = {"device": "RTX", "reason": "20 GB did not come back.", "remedy": "Wait."}
    held = [
        {"pid": 7, "program": "engine", "alive": True, "device": "", "bytes": None},
        {"pid": 8, "program": "", "alive": False, "device": "nvidia:0", "bytes": 2 * 10**9},
        {"pid": None, "program": "", "alive": False, "device": "memory", "bytes": 10**9},
    ]
    answer = {"status": "success", "still_held": held, "devices_quarantined": [kept]}
    server.reset(answers={"/api/v1/unload": answer})
    told = cli("unload", "Demo-1B-GGUF").stderr
    assert told.splitlines() == [
        "Process 7 (engine) does not end.",
        "Process 8 (dead) still holds 2.0 GB of nvidia:0.",
        "1.0 GB of memory are still taken by files it has left.",
        "RTX is not used for now: 20 GB did not come back. Wait.",
    ]


def test_unload_and_delete(cli: Cli, server: Server) -> None:
    assert "Model unloaded successfully: Demo-1B-GGUF" in cli("unload", "Demo-1B-GGUF").stdout
    assert "All models unloaded" in cli("unload").stdout
    assert [request["body"] for request in server.asked("/unload")] == [
        {"model_name": "Demo-1B-GGUF"},
        {},
    ]
    assert "Model deleted successfully: Demo-1B-GGUF" in cli("delete", "Demo-1B-GGUF").stdout
    done = cli("delete", "Nobody")
    assert (done.returncode, done.stderr) == (1, "Error: There is no model 'Nobody'.\n")


def test_logs_prints_lines(cli: Cli, server: Server) -> None:
    assert cli("logs", "Demo-1B-GGUF", "-n", "2").stdout == "line 4\nline 5\n"
    assert server.asked("/logs")[0]["query"] == {"model": "Demo-1B-GGUF", "lines": "2"}
    done = cli("logs", "Nobody")
    assert (done.returncode, done.stderr) == (1, "Error: Nobody is not loaded.\n")


def test_logs_of_the_server_in_the_background(lonely: Cli, tmp_path: Path) -> None:
    assert "No server was started in the background" in lonely("logs", "--server").stderr
    folder = tmp_path / "run" / "lemonade"
    folder.mkdir(parents=True)
    (folder / "server.log").write_text("one\ntwo\nthree\n")
    assert lonely("logs", "--server", "-n", "2").stdout == "two\nthree\n"


def test_stop_returns_when_the_server_is_gone(environment: dict[str, str]) -> None:
    with stand_in_process() as server:
        cli = Cli({**environment, "LEMONADE_PORT": str(server.port)})
        done = cli("stop")
        assert (done.returncode, done.stdout) == (0, "Server stopped.\n")
        assert server.process.wait(10) == 0
        done = cli("stop")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: Could not connect to Lemonade server (")


def test_a_wrong_key_is_named(environment: dict[str, str]) -> None:
    with stand_in_process("--key", "secret") as server:
        cli = Cli({**environment, "LEMONADE_HOST": server.url})
        done = cli("list")
        assert done.returncode == 1
        assert "API key" in done.stderr
        assert cli("list", "--api-key", "secret").returncode == 0
        assert cli("list", env={"LEMONADE_API_KEY": "secret"}).returncode == 0
        admin = {"LEMONADE_API_KEY": "wrong", "LEMONADE_ADMIN_API_KEY": "secret"}
        assert cli("list", env=admin).returncode == 0


def test_proxies_and_netrc_are_not_asked(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login a password b\n")
    done = cli(
        "status", env={"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    )
    assert done.returncode == 0
