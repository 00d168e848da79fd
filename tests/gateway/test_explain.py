"""What a load would do, as the server and the command line say it; and that nothing is done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Serving, environment, fake_catalog, fake_model, serving

pytestmark = pytest.mark.slow

FAMILIES = {
    "schema_version": 1,
    "families": {"f": {"checkpoint_regex": "one", "args": "--chunks 2"}},
}


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    file = catalog / "recipes" / "fake.toml"
    text = file.read_text().replace('title = "Fake', 'families = "fakes.json"\ntitle = "Fake', 1)
    file.write_text(text.replace("[argv]\n", '[help]\nargv = [["--help"]]\n\n[argv]\n', 1))
    (catalog / "fakes.json").write_text(json.dumps(FAMILIES))
    fake_model(catalog, "one")
    fake_model(catalog, "two")
    gone = json.loads((catalog / "server_models.json").read_text())
    gone["far"] = {"checkpoint": "acme/far:Q4_K_M", "recipe": "fake", "size": 1.0}
    (catalog / "server_models.json").write_text(json.dumps(gone))
    config = {"fake": {"args": "--slow-chunks 0"}}
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}, config=config) as one:
        yield one


def explained(server: Serving, model: str, **options: object) -> dict[str, Any]:
    reply = server.post(f"models/{model}/explain", options)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def by_flag(answer: dict[str, Any]) -> dict[str, Any]:
    return {row["words"][0]: row for row in answer["arguments"]}


def test_each_argument_has_its_layer_and_what_it_overrode(server: Serving) -> None:
    rows = by_flag(explained(server, "one", fake_args="--chunks 5"))
    assert rows["--model"]["origin"] == "recipe"
    assert rows["--slow-chunks"]["layer"] == "the configuration"
    assert rows["--chunks"]["words"] == ["--chunks", "5"]
    assert rows["--chunks"]["origin"] == "request"
    (below,) = rows["--chunks"]["overrode"]
    assert (below["origin"], below["words"]) == ("family", ["--chunks", "2"])


def test_it_is_what_a_load_does(server: Serving) -> None:
    answer = explained(server, "one", fake_args="--chunks 5")
    assert server.post("load", {"model_name": "one", "fake_args": "--chunks 5"}).ok
    real = server.loaded()["one"]["launch_command"]

    def without_port(words: list[str]) -> list[str]:
        at = words.index("--port")
        return words[:at] + words[at + 2 :]

    assert without_port(answer["command_line"]) == without_port(real)


def test_nothing_is_done(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    before = server.loaded()
    answer = explained(server, "two", fake_args="--exit-at-start 3")
    assert answer["placement"]["leaves"] == ["one"]
    assert {n: row["pid"] for n, row in server.loaded().items()} == {
        n: row["pid"] for n, row in before.items()
    }
    same = explained(server, "one")
    assert "nothing would happen" in same["placement"]["because"]
    other = explained(server, "one", fake_args="--chunks 9")
    assert "replaced" in other["placement"]["because"]


def test_an_engine_is_not_asked_for_it(server: Serving) -> None:
    answer = explained(server, "one", fake_args="--chunk 9")
    assert any("not been learnt" in notice for notice in answer["notices"])
    assert "learnt 4" not in server.log()
    assert server.post("load", {"model_name": "one", "fake_args": "--chunk 9"}).status_code == 400
    refused = server.post("models/one/explain", {"fake_args": "--chunk 9"})
    assert refused.status_code == 400
    assert "--chunks" in refused.text


def test_a_model_that_is_not_here_is_planned_all_the_same(server: Serving) -> None:
    answer = explained(server, "far")
    assert answer["missing"] == ["far is not downloaded."]
    assert by_flag(answer)["--model"]["words"] == ["--model", "<acme/far:Q4_K_M>"]


def test_the_backend_is_chosen_for_a_reason(server: Serving) -> None:
    (candidate,) = explained(server, "one")["candidates"]
    assert candidate["backend"] == "fake:program"
    assert candidate["chosen"]
    assert candidate["installed"]
    assert candidate["because"]


def test_the_environment_says_who_gave_what(server: Serving) -> None:
    rows = {row["name"]: row for row in explained(server, "one")["environment"]}
    assert rows["PYTHONNOUSERSITE"]["origin"] == "lemonade"
    assert rows["PATH"]["origin"] == "server"
    assert not {"PYTHONPATH", "LEMONADE_CACHE_DIR"} & set(rows)


def test_secrets_are_not_shown(server: Serving) -> None:
    rows = by_flag(explained(server, "one", fake_args="--hf-token abc123"))
    assert rows["--hf-token"]["words"] == ["--hf-token", "***"]


def test_a_query_says_the_same(server: Serving) -> None:
    reply = server.get("models/one/explain?fake_args=--chunks%205&merge_args=false")
    assert reply.status_code == 200
    assert "--slow-chunks" not in by_flag(reply.json())
    assert by_flag(reply.json())["--chunks"]["words"] == ["--chunks", "5"]


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [
        ("none", {}, 404),
        ("one", {"fake_args": "--port 80"}, 400),
        ("one", {"fake_arg": "x"}, 400),
        ("one", {"fake_args": "--x '"}, 400),
    ],
)
def test_what_a_load_would_refuse_is_refused(
    server: Serving, model: str, options: dict[str, object], status: int
) -> None:
    assert server.post(f"models/{model}/explain", options).status_code == status


def command(server: Serving, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    port = server.url.rpartition(":")[2]
    return subprocess.run(
        [sys.executable, "-m", "lemonade", "explain", *words, "--port", port],
        env={**environment(home), "LEMONADE_CATALOG": str(home / "catalog")},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_the_command_prints_it_for_people(server: Serving, home: Path) -> None:
    done = command(server, home, "one", "--fake-args", "--chunks 5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Loading one would start fake:program")
    (chunks,) = [line for line in lines if line.strip().startswith("--chunks")]
    assert "the request; instead of --chunks 2 (the model's family)" in chunks
    assert lines[-1] == "Nothing was done."
    assert any("PYTHONNOUSERSITE=1" in line for line in lines)


def test_the_command_prints_json(server: Serving, home: Path) -> None:
    done = command(server, home, "one", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_name"] == "one"
    assert command(server, home, "none").returncode == 1
