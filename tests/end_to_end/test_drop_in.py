"""An engine is two files: dropped into a folder they are found, and what is wrong is named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, Cli
from tests.end_to_end.conftest import link_bundles
from tests.serving import FAKE_RECIPE, ROOT, environment, fake_catalog, fake_model, serving

pytestmark = pytest.mark.slow

RECIPE = FAKE_RECIPE.format(slots="standard", ready_within="20s", files="gguf")


@pytest.mark.parametrize("place", ["config", "catalog"])
def test_an_engine_of_ones_own(home: Path, place: str) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "Mine", args="--chunks 4")
    env = {"LEMONADE_CATALOG": str(catalog)}
    if place == "config":
        shutil.move(catalog, home / "config")
        models = home / "config" / "server_models.json"
        models.write_text(models.read_text().replace("/catalog/", "/config/"))
        env = {}
    with serving(home, env=env) as server:
        cli = Cli({**environment(home), **env, "LEMONADE_HOST": server.url})
        backends = cli("backends").stdout
        assert re.search(r"^fake +program +installed", backends, re.MULTILINE), backends
        assert re.search(r"^Mine +Yes .* fake$", cli("list", "mine").stdout, re.MULTILINE)
        assert "--fake-args" in cli("load", "--help").stdout
        done = cli("run", "Mine", "Hello", "--fake-args", "--chunks 2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        command = json.loads(cli("ps", "--json").stdout)[0]["launch_command"]
        assert command[-2:] == ["--chunks", "2"]
        assert command[command.index("--alias") + 1] == "Mine"


@pytest.mark.engine
def test_what_came_with_lemonade_can_be_replaced(home: Path, engine_bundles: Path) -> None:
    config = home / "config"
    (config / "backends").mkdir(parents=True)
    model = {
        "checkpoint": str(ROOT / "models" / "tiny-lemon-think-Q8_0.gguf"),
        "source": "local_path",
        "recipe": "llamacpp",
        "labels": ["chat"],
        "size": 0.001,
        "recipe_options": {"ctx_size": 384},
    }
    (config / "server_models.json").write_text(json.dumps({"Tiny-Lemon-GGUF": model}))
    theirs = (ROOT / "backends" / "llamacpp-system.toml").read_text()
    (config / "backends" / "any-name.toml").write_text(
        theirs.replace('"llama-server"', '"no-such-server"')
    )
    with serving(home, bundles=engine_bundles) as server:
        rows = server.get("system-info").json()["recipes"]["llamacpp"]["backends"]
        assert rows["system"]["message"] == "no-such-server is not on PATH."
        assert rows["wheel"]["state"] == "installed", "what is not replaced is as it was"
        assert server.chat("Tiny-Lemon-GGUF").status_code == 200
        command = server.loaded()["Tiny-Lemon-GGUF"]["launch_command"]
        assert command[command.index("--ctx-size") + 1] == "384"
        assert model["checkpoint"] in command
        ids = [m["id"] for m in server.get("models?show_all=true").json()["data"]]
        assert ids.count("Tiny-Lemon-GGUF") == 1
        assert "Tiny-Embed-GGUF" in ids


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("recipes/x.toml", RECIPE.replace("[argv]", "[argv"), ["not valid TOML", "line"]),
        ("recipes/x.toml", RECIPE.replace("ready_within", "ready_withn"), ["[upstream]", "withn"]),
        ("recipes/x.toml", RECIPE.replace('"standard"', '"greedy"'), ["key 'slots'", "standard"]),
        ("recipes/x.toml", RECIPE.replace('"20s"', '"soon"'), ["[upstream]", "ready_within"]),
        ("recipes/x.toml", RECIPE.replace("{port}", "{prot}"), ["[argv]", "{prot}"]),
        ("recipes/x.toml", RECIPE.replace('type = "argv"', "type = 7"), ["option", "type"]),
        ("backends/x.toml", 'schema = 1\nid = "fake"\n', ["key 'id'", "recipe:variant"]),
        ("backends/x.toml", "schema = 2\n", ["key 'schema'"]),
        ("server_models.json", '{"Mine": {"checkpoint": 7}}', ["[Mine", "recipe"]),
        ("server_models.json", '{"Mine": ', ["not valid JSON"]),
    ],
)
def test_a_wrong_file_stops_the_start_with_one_line(
    home: Path, file: str, text: str, words: list[str]
) -> None:
    path = home / "config" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    done = Cli(environment(home))("serve", "--port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {path}")
    assert all(word in line for word in words), line


def test_a_recipe_without_a_backend_is_no_obstacle(home: Path) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "Mine")
    (catalog / "backends" / "fake-program.toml").unlink()
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert "Mine" not in server.get("models").text
        reply = server.chat("Mine")
        assert reply.status_code == 404
        error = reply.json()["error"]
        assert error["code"] == "model_not_supported"


@pytest.mark.engine
def test_an_installed_wheel_demonstrates_itself(home: Path, engine_bundles: Path) -> None:
    dist, site = home / "dist", home / "site"
    build = ["build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT)]
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    places = ["--find-links", str(dist), "--target", str(site)]
    for command in (build, ["pip", "install", *options, *places, "lemonade"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    link_bundles(home, engine_bundles)
    done = subprocess.run(
        [str(site / "bin" / "lemonade"), "demo", "--once"],
        env={**environment(home), "PYTHONPATH": str(site)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The server and its engine are gone." in done.stdout
    log = (home / "run" / "lemonade" / "demo.log").read_text()
    shipped = site / "lemonade" / "_shipped"
    assert f"{shipped}/backends/llamacpp-wheel.overlay/server.py" in log
    assert f"{shipped}/models/tiny-lemon-Q8_0.gguf" in log
    assert str(ROOT / "backends") not in log
