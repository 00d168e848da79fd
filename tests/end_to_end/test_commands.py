"""The commands against real servers and the embedded engine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.hub_fixture import running_hub, write_repository
from tests.cli.conftest import PATIENCE, Cli
from tests.end_to_end.conftest import free_port, link_bundles, terminal
from tests.serving import ROOT, Serving, environment, eventually, gone, serving, survivors

pytestmark = [pytest.mark.slow, pytest.mark.engine]

CHAT = "Tiny-Lemon-GGUF"
WORDS = re.compile(r"\w+ \w+")


def client_of(server: Serving) -> Cli:
    return Cli({**environment(server.home), "LEMONADE_HOST": server.url})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path) -> Iterator[Serving]:
    """A server for commands that leave it as it is."""
    home = tmp_path_factory.mktemp("shared")
    with serving(home, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)


@pytest.fixture
def asking(shared: Serving) -> Cli:
    return client_of(shared)


def loaded(cli: Cli) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(cli("ps", "--json").stdout)
    return rows


def test_run_starts_a_server_and_stop_ends_all_of_it(cli: Cli, home: Path) -> None:
    first = cli("run", CHAT, "Who are you?")
    assert first.returncode == 0, first.stderr
    assert WORDS.search(first.stdout), "the answer is all there is"
    assert len(first.stdout.splitlines()) == 1
    assert "goes on in the background; `lemonade stop` ends it." in first.stderr
    (row,) = loaded(cli)
    assert row["model_name"] == CHAT

    piped = cli("run", CHAT, stdin="Who are you?\n")
    assert (piped.returncode, piped.stderr) == (0, ""), "the server is there, the model is loaded"
    assert WORDS.search(piped.stdout)
    assert loaded(cli)[0]["pid"] == row["pid"]
    assert cli("logs", "--server", "-n", "5").stdout.count("\n") == 5

    stopped = cli("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "Server stopped.\n")
    assert gone(row["pid"])
    eventually(lambda: not survivors(home), "the server ends too")
    assert cli("status", "--json").returncode == 1


def test_run_at_a_terminal(cli: Cli) -> None:
    lemonade = (sys.executable, "-m", "lemonade")
    try:
        with terminal((*lemonade, "run", CHAT, "Who are you?"), cli.env) as one:
            assert one.ended() == 0, one.text
        assert re.search(r"\d+ tokens, [\d.]+ tokens/s, first after", one.text)
        with terminal((*lemonade, "ps"), cli.env) as one:
            assert one.ended() == 0
        row = rf"{CHAT} +llm +llamacpp:wheel +\d+ +\d+ +ready"
        assert re.search(row, one.text), f"eighty columns are enough:\n{one.text}"
    finally:
        assert cli("stop").returncode == 0


def test_a_models_life(home: Path, engine_bundles: Path) -> None:
    with serving(home, bundles=engine_bundles) as server:
        cli = client_of(server)
        assert cli("ps").stdout == "No models loaded.\n"
        options = ("--ctx-size", "512", "--pinned", "--save-options")
        done = cli("load", CHAT, *options)
        assert done.returncode == 0, done.stderr
        (row,) = loaded(cli)
        assert (row["pinned"], row["recipe_options"]["ctx_size"]) == (True, 512)
        command = row["launch_command"]
        assert command[command.index("--ctx-size") + 1] == "512"
        again = cli("load", CHAT, "--json")
        assert json.loads(again.stdout)["status"] == "success"
        assert loaded(cli)[0]["pid"] == row["pid"], "the same options, the same engine"
        assert f"{CHAT} (pinned)" in cli("status").stdout
        refused = cli("load", "Tiny-Lemon-Think-GGUF")
        assert refused.returncode == 1
        assert f"{CHAT} is pinned" in refused.stderr
        done = cli("unload", CHAT)
        assert (done.returncode, gone(row["pid"])) == (0, True)
        assert cli("unload", CHAT).returncode == 1


def test_a_model_of_ones_own(home: Path, engine_bundles: Path) -> None:
    file = (ROOT / "models" / "tiny-lemon-Q8_0.gguf").read_bytes()
    write_repository(home / "repositories", "me/Mine-GGUF", {"Mine-Q8_0.gguf": file})
    with (
        running_hub(home / "repositories") as hub,
        serving(home, env={"HF_ENDPOINT": hub}, bundles=engine_bundles) as server,
    ):
        cli = client_of(server)
        words = ("--checkpoint", "main", "me/Mine-GGUF:Q8_0", "--recipe", "llamacpp")
        done = cli("pull", "user.Mine", *words)
        assert done.returncode == 0, done.stderr
        assert "Mine-Q8_0.gguf" in done.stdout
        assert done.stdout.endswith("Model pulled successfully: user.Mine\n")
        assert re.search(r"^Mine +Yes", cli("list", "--downloaded").stdout, re.MULTILINE)
        answer = cli("run", "Mine", "Who are you?")
        assert answer.returncode == 0, answer.stderr
        assert WORDS.search(answer.stdout)
        done = cli("delete", "user.Mine")
        assert done.returncode == 0, done.stderr
        assert "Mine" not in cli("list", "--downloaded").stdout
        assert loaded(cli) == []
        assert not list((home / "hub").rglob("*.gguf"))
        again = cli("pull", "me/Mine-GGUF:Q8_0")
        assert again.returncode == 0, again.stderr


def test_followed_logs_outlive_the_model(home: Path, engine_bundles: Path) -> None:
    with serving(home, bundles=engine_bundles) as server:
        cli = client_of(server)
        assert cli("load", CHAT).returncode == 0
        with cli.running("logs", "-f", CHAT) as process:
            assert process.stdout is not None
            assert process.stdout.readline(), "what was printed before comes first"
            assert cli("run", CHAT, "hi").returncode == 0
            assert any("print_timing" in line for line in process.stdout), "what is new follows"
            assert cli("unload").returncode == 0
            assert any("[the engine exited" in line for line in process.stdout), "its end is told"
            assert cli("load", CHAT).returncode == 0
            assert any("model loaded" in line for line in process.stdout), "the next one's follow"
        assert cli("unload").returncode == 0
        left = cli("logs", CHAT, "-n", "2000")
        assert left.returncode == 0, "what its last engine printed can still be read"
        assert "print_timing" in left.stdout
        done = cli("logs", "Tiny-Embed-GGUF")
        assert done.returncode == 1
        assert "is not loaded" in done.stderr


@pytest.mark.parametrize(
    ("words", "look"),
    [
        (("status", "--json"), lambda reply: reply["port"]),
        (("ps", "--json"), lambda reply: reply == []),
        (("list", "--json", "--downloaded"), lambda reply: reply[0]["id"]),
        (("list", "--json", "tiny"), lambda reply: reply[0]["checkpoint"]),
        (("backends", "--json"), lambda reply: reply["llamacpp"]["backends"]["wheel"]["state"]),
        (("config", "--json"), lambda reply: reply["llamacpp"]["backend"] == "auto"),
    ],
)
def test_json_is_json(asking: Cli, words: tuple[str, ...], look: Any) -> None:
    done = asking(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert look(json.loads(done.stdout))


def test_tables(asking: Cli) -> None:
    assert "No models loaded." in asking("status").stdout
    listed = asking("list", "tiny").stdout.splitlines()
    assert listed[0] == "Local"
    assert "Available for Download" in listed
    backends = asking("backends").stdout
    assert re.search(r"^(llamacpp)? +wheel +installed +[\d.]+", backends, re.MULTILINE), backends
    everything = asking("backends", "--all").stdout
    assert re.search(r"^(llamacpp)? +wheel +installed", everything, re.MULTILINE), everything
    shown = asking("config").stdout
    assert re.search(r"^  llamacpp\.backend +auto$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("load", "Tiny-Lemon"), 1, "Did you mean Tiny-Lemon-"),
        (("run", "No-Such-Model", "hi"), 1, "There is no model 'No-Such-Model'."),
        (("pull", "No-Such-Model"), 1, "`lemonade pull OWNER/REPO`"),
        (("delete", "No-Such-Model"), 1, "There is no model 'No-Such-Model'."),
        (("delete", CHAT), 1, "is part of Lemonade itself"),
        (("unload", CHAT), 1, "is not loaded"),
        (("logs",), 1, "No model is loaded."),
        (("load", CHAT, "--llamacpp-args", "--nonsense 1"), 1, "no argument '--nonsense'"),
        (("load", CHAT, "--llamacpp-args", "--port 80"), 1, "'--port'"),
        (("load", CHAT, "--llamacpp", "vulcan"), 1, "wheel"),
        (("pull", "me/Nobodys-GGUF:Q4_0"), 1, "cannot be reached"),
        (("backends", "install", "llamacpp:whel"), 1, "llamacpp:wheel"),
        (("backends", "install", "llamacpp"), 2, "Write recipe:variant"),
        (("config", "set", "ctx_sise=5"), 1, "ctx_size"),
        (("config", "set", "ctx_size=many"), 1, "'ctx_size'"),
        (("config", "set", "ctx_size"), 2, "not KEY=VALUE"),
        (("lode", CHAT), 2, "load"),
        (("status", "--port", "99999"), 2, "not a port"),
        (("ps", "--host", "http://127.0.0.1:1"), 1, "Could not connect to Lemonade server"),
        (("ps", "--host", "https://127.0.0.1:1"), 1, "Could not connect to Lemonade server"),
    ],
)
def test_what_does_not_work_says_so_once(
    asking: Cli, words: tuple[str, ...], code: int, said: str
) -> None:
    done = asking(*words)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.startswith("Error: ")
        sentences = re.findall(r"[A-Z`][^.]{15,}\.", done.stderr)
        assert len(sentences) == len(set(sentences)), "nothing is said twice"
    else:
        assert done.stderr.splitlines()[-1].startswith("Run with --help")
    assert loaded(asking) == []


def test_a_chat_through_a_pipe(home: Path, engine_bundles: Path) -> None:
    typed = "Who are you?\n/think off\n/system You are brief.\nWho are you?\n/ps\n/stats\n/exit\n"
    with serving(home, bundles=engine_bundles) as server:
        done = client_of(server)("chat", CHAT, stdin=typed)
        assert done.returncode == 0, done.stderr
        assert len(re.findall(r"^I am .+\.$", done.stdout, re.MULTILINE)) == 2, done.stdout
        assert re.search(rf"^{CHAT} +llm", done.stdout, re.MULTILINE)
        assert re.search(r"request_count_total +2", done.stdout)


def test_settings_from_the_command_line(home: Path) -> None:
    with serving(home) as server:
        cli = client_of(server)
        done = cli("config", "set", "max-loaded-models=2", "llamacpp.args=-t 1", "offline=true")
        assert done.returncode == 0, done.stderr
        wanted = {"max_loaded_models": 2, "llamacpp": {"args": "-t 1"}, "offline": True}
        assert json.loads(done.stdout) == wanted
        kept = json.loads((home / "config" / "config.json").read_text())
        assert wanted.items() <= kept.items()
        shown = json.loads(cli("config", "--json").stdout)
        assert shown["llamacpp"]["args"] == "-t 1"
        assert re.search(r"Max Models/Type +2", cli("status").stdout)


def test_keys(home: Path) -> None:
    keys = {"LEMONADE_API_KEY": "right", "LEMONADE_ADMIN_API_KEY": "admin"}
    with serving(home, env=keys) as server:
        cli = client_of(server)
        for words in (("ps",), ("list",), ("run", CHAT, "hi")):
            refused = cli(*words, env={"LEMONADE_API_KEY": "wrong"})
            assert refused.returncode == 1
            assert "API key" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        assert cli("ps", env={"LEMONADE_API_KEY": "right"}).returncode == 0
        assert cli("ps", "--api-key", "right").returncode == 0
        assert cli("status", "--json").returncode == 0, "whether it runs is no secret"
        refused = cli("config", env={"LEMONADE_API_KEY": "right"})
        assert refused.returncode == 1
        assert "LEMONADE_ADMIN_API_KEY" in refused.stderr
        assert cli("config", env=keys).returncode == 0
        assert cli("stop", env=keys).returncode == 0
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("module", ["lemonade", "lemonade.cli.lemond"])
def test_a_second_server_on_a_port_says_one_line(shared: Serving, home: Path, module: str) -> None:
    port = shared.url.rpartition(":")[2]
    words = ("serve", "--port", port) if module == "lemonade" else ("--port", port)
    done = Cli(environment(home), module)(*words)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: Port {port} on ")
    assert "taken" in line


def test_lemond_serves_from_the_directories_it_is_told(home: Path, engine_bundles: Path) -> None:
    link_bundles(home, engine_bundles)
    settings = home / "settings"
    port = free_port()
    env = environment(home)
    # Named on the command line they need no variables.
    del env["LEMONADE_CACHE_DIR"], env["LEMONADE_CONFIG_DIR"]
    told = Cli(env, "lemonade.cli.lemond")
    words = (str(home / "cache"), str(settings), "--port", str(port), "--log-level", "warning")
    with told.running(*words) as process:
        assert process.stdout is not None
        assert f"http://localhost:{port}" in process.stdout.readline()
        cli = Cli({**env, "LEMONADE_PORT": str(port)})
        assert cli("config", "set", "max_loaded_models=2").returncode == 0
        assert (settings / "config.json").exists()
        assert cli("run", CHAT, "hi").returncode == 0
        (row,) = loaded(cli)
        assert str(home / "cache") in row["launch_command"][0]
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (0, "")
    assert gone(row["pid"])

    portable = home / "portable"
    with told.running(str(portable), "--port", "0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        cli = Cli({**env, "LEMONADE_HOST": url})
        assert cli("config", "set", "max_loaded_models=2").returncode == 0
        assert (portable / "config.json").exists(), "one directory holds everything"
        assert cli("stop").returncode == 0
        assert process.wait(PATIENCE) == 0


def test_what_is_piped_away_ends_quietly(asking: Cli) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m lemonade list --json | head -c 1"],
        env={**asking.env, "PYTHONPATH": str(ROOT)},
        cwd=os.sep,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "["


def test_run_says_why_it_cannot_start_a_server(bare: Cli, home: Path) -> None:
    done = bare("run", CHAT, "hi", env={"XDG_RUNTIME_DIR": "/proc/nowhere"})
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: The server's log /proc/nowhere/")

    (home / "config").mkdir()
    (home / "config" / "config.json").write_text('{"ctx_size": "x"}')
    done = bare("run", CHAT, "hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert "'ctx_size' in" in done.stderr
    assert "All of its output is in" in done.stderr


def test_two_runs_at_once_share_one_server(cli: Cli) -> None:
    try:
        with cli.running("run", CHAT, "Who are you?") as one:
            other = cli("run", CHAT, "Who are you?")
            stdout, stderr = one.communicate(timeout=PATIENCE)
        assert (one.returncode, other.returncode) == (0, 0), stderr + other.stderr
        assert WORDS.search(stdout)
        assert WORDS.search(other.stdout)
        assert len(loaded(cli)) == 1
    finally:
        assert cli("stop").returncode == 0
