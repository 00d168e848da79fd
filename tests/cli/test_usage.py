"""Command lines that cannot be meant, help, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from lemonade import __version__
from lemonade.cli.main import ENTRIES, root
from lemonade.cli.reference import render_reference
from tests.cli.conftest import ROOT, Cli, Server

HEAVY = ("aiohttp", "requests", "rich", "pydantic", "huggingface_hub", "psutil", "urllib3")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "x", "--label", "smart"], "smart"),
        (["pull", "user.Kit", "--recipe", "collection.omni"], "--components"),
        (["pull", "user.Mine", "--recipe", "llamacpp"], "--checkpoint"),
        (["pull", "user.Mine", "--checkpoint", "main", "a/b:Q4"], "--recipe"),
        (["pull", "x", "--alias", "y"], "--alias"),
        (["backends", "install", "foo"], "'foo' does not name a backend"),
        (["config", "set", "key"], "'key' is not KEY=VALUE"),
        (["config", "set", "a=1", "a.b=2"], "contradicts"),
        (["config", "set", "a.b=2", "a=1"], "contradicts"),
        (["lst"], "Did you mean list?"),
        (["list", "--nonsense"], "--nonsense"),
        (["load"], "MODEL"),
        (["load", "x", "--ctx-size", "big"], "big"),
        (["status", "--port", "99999"], "99999"),
        (["run"], "Name a model"),
        (["run", "x"], "There is no prompt"),
        ([], "Missing command"),
    ],
)
def test_a_wrong_command_line_exits_2_and_points_to_help(
    lonely: Cli, words: list[str], says: str
) -> None:
    done = lonely(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Run with --help")


def test_version_and_help(lonely: Cli) -> None:
    assert lonely("--version").stdout == f"lemonade version {__version__}\n"
    for words in (["--help"], ["-h"]):
        done = lonely(*words)
        assert done.returncode == 0
        assert all(f"\n  {name} " in done.stdout for name, e in ENTRIES.items() if e.heading)
    assert "Usage: lemonade backends install" not in lonely("--help").stdout
    everything = lonely("--help-all").stdout
    assert all(f"Usage: lemonade {name}" in everything for name, e in ENTRIES.items() if e.heading)


def test_the_listed_summaries_are_the_commands_own() -> None:
    context = click.Context(root)
    for name, entry in ENTRIES.items():
        command = root.get_command(context, name)
        assert command is not None
        if entry.heading:
            assert command.get_short_help_str(200) == entry.summary


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["serve", "--help"]])
def test_help_imports_nothing_heavy(environment: dict[str, str], words: list[str]) -> None:
    program = (
        "import sys\n"
        "from lemonade.cli.main import conduct, root\n"
        f"conduct(root, 'lemonade', {words!r})\n"
        f"found = set({HEAVY!r}) & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_that_ask_import_no_server(environment: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from lemonade.cli.main import conduct, root\n"
        "code = conduct(root, 'lemonade', ['list', '--port', '1'])\n"
        "found = {'aiohttp', 'rich', 'pydantic', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: Could not connect to Lemonade server (http://127.0.0.1:1)"
    )


@pytest.mark.parametrize("command", ["load", "run"])
def test_load_options_come_from_the_recipes(lonely: Cli, command: str) -> None:
    done = lonely(command, "--help")
    assert done.returncode == 0
    for words in ("General Options:", "--ctx-size", "--merge-args", "Llama.cpp Backend Options:"):
        assert words in done.stdout
    for flag in ("--llamacpp BACKEND", "--llamacpp-device", "--llamacpp-args"):
        assert flag in done.stdout


def test_a_recipe_of_ones_own_has_its_flags(
    lonely: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("catalog")
    (folder / "recipes").mkdir()
    text = (ROOT / "recipes" / "llamacpp.toml").read_text()
    mine = text.replace('"llamacpp"', '"mine"').replace("llamacpp_", "mine_")
    mine = mine.replace("--llamacpp", "--mine").replace("Llama.cpp Backend", "My Own")
    (folder / "recipes" / "mine.toml").write_text(mine)
    done = lonely("load", "--help", env={"LEMONADE_CATALOG": str(folder)})
    assert "My Own Options:" in done.stdout, done.stderr
    assert "--mine-args" in done.stdout
    (folder / "recipes" / "mine.toml").write_text("schema = 1\nid = 'mine'\n")
    done = lonely("load", "x", env={"LEMONADE_CATALOG": str(folder)})
    assert done.returncode == 1
    assert "mine.toml" in done.stderr


def test_global_options_stand_before_or_after_the_command(lonely: Cli, server: Server) -> None:
    port = str(server.port)
    assert lonely("--port", port, "status", "--json").returncode == 0
    assert lonely("status", "--json", "--port", port, "--no-discovery").returncode == 0
    assert lonely("backends", "--port", port).returncode == 0
    assert lonely("config", "set", "offline=true", "--port=1").returncode == 2
    assert lonely("--port", port, "config", "set", "offline=true").returncode == 0
    env = {"LEMONADE_HOST": f"http://localhost:{port}"}
    assert lonely("list", env=env).returncode == 0
    done = lonely("list", env={"LEMONADE_HOST": f"https://127.0.0.1:{port}"})
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Could not connect to Lemonade server (https://")


def test_lemond_takes_directories(environment: dict[str, str]) -> None:
    lemond = Cli(environment, module="lemonade.cli.lemond")
    assert lemond("--version").stdout == f"lemond version {__version__}\n"
    assert "[CACHE_DIR] [CONFIG_DIR]" in lemond("-h").stdout
    done = lemond("a", "b", "c")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Run with --help")


def test_a_closed_pipe_is_no_traceback(cli: Cli) -> None:
    with cli.running("logs", "-f") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) in (0, 1)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_the_page_of_the_documentation_is_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    block = page.partition("<!-- generated: commands -->\n")[2].partition("<!-- end -->")[0]
    assert block == render_reference(), "run `make docs`"
