"""Arguments as a client meets them: refused before anything is touched, and told about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Serving, fake_catalog, fake_model, serving

pytestmark = pytest.mark.slow

MORE = """
[[upstream.retry]]
pattern = "estimated maximum model length is (?P<ctx_size>[0-9]+)"

[help]
argv = [["--help"]]

[context]

"""
CTX_SIZE = """
[[option]]
name = "ctx_size"
type = "int"
default = -1
help = "Context size."
"""
FAMILIES = {
    "schema_version": 1,
    "families": {"slow": {"checkpoint_regex": "cautious", "args": "--chunks 2"}},
    "models": {"one": {"args": "--chunks 4"}},
}


@pytest.fixture
def catalog(home: Path) -> Path:
    folder = fake_catalog(home)
    file = folder / "recipes" / "fake.toml"
    text = file.read_text().replace('title = "Fake', 'families = "fakes.json"\ntitle = "Fake', 1)
    text = text.replace("[argv]\n", f"{MORE}[argv]\n", 1)
    text = text.replace("reserved =", 'context = ["--ctx-size", "{ctx_size}"]\nreserved =', 1)
    text = text.replace("reserved =", 'defaults = ["--double-fork"]\nreserved =', 1)
    file.write_text(text + CTX_SIZE)
    (folder / "fakes.json").write_text(json.dumps(FAMILIES))
    fake_model(folder, "one")
    fake_model(folder, "two")
    fake_model(folder, "cautious")
    return folder


@pytest.fixture
def server(home: Path, catalog: Path) -> Iterator[Serving]:
    config = {"max_loaded_models": 2}
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}, config=config) as one:
        yield one


def command(server: Serving, model: str) -> list[str]:
    words: list[str] = server.loaded()[model]["launch_command"]
    return words


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ("--chunk 3", "--chunks"),
        ("--port 80", "--port"),
        ("--chunks '3", "not closed"),
        ("chunks 3", "belongs to no flag"),
    ],
)
def test_a_refused_argument_touches_nothing(server: Serving, args: str, word: str) -> None:
    for name in ("one", "two"):
        assert server.chat(name).status_code == 200
    before = server.loaded()
    log = server.log().count("starting")
    for body in ({"model_name": "one"}, {"model_name": "cautious"}):
        refused = server.post("load", {**body, "fake_args": args})
        assert refused.status_code == 400, refused.text
        assert word in refused.text
    assert {n: row["pid"] for n, row in server.loaded().items()} == {
        n: row["pid"] for n, row in before.items()
    }
    assert server.log().count("starting") == log
    assert server.chat("two").status_code == 200


def test_an_unknown_argument_of_the_configuration_is_named(home: Path, catalog: Path) -> None:
    config = {"fake": {"args": "--ready-afer 1"}}
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}, config=config) as server:
        refused = server.chat("one")
        assert refused.status_code == 400
        assert "the configuration" in refused.text
        assert "--ready-after" in refused.text
        assert not server.loaded()


def test_the_flags_of_an_engine_are_learnt_once(server: Serving) -> None:
    for _ in range(2):
        assert server.post("load", {"model_name": "one", "fake_args": "--x"}).status_code == 400
    assert server.log().count("learnt") == 1


def test_an_engine_that_prints_no_help_refuses_for_itself(home: Path, catalog: Path) -> None:
    file = catalog / "recipes" / "fake.toml"
    file.write_text(file.read_text().replace('[["--help"]]', '[["--version"]]'))
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        loaded = server.post("load", {"model_name": "one", "fake_args": "--chunks 5"})
        assert loaded.status_code == 200
        assert "could not be learnt" in loaded.json()["notices"][0]


def test_families_are_below_the_user(server: Serving) -> None:
    assert server.chat("cautious").status_code == 200
    words = command(server, "cautious")
    assert words[words.index("--chunks") + 1] == "2"
    assert server.post("load", {"model_name": "one"}).json()["notices"] == []
    words = command(server, "one")
    assert words[words.index("--chunks") + 1] == "4"
    assert server.post("load", {"model_name": "one", "fake_args": "--chunks 6"}).status_code == 200
    words = command(server, "one")
    assert words[words.index("--chunks") + 1] == "6"
    assert words.count("--chunks") == 1


def test_a_default_may_be_asked_for(server: Serving) -> None:
    loaded = server.post("load", {"model_name": "one", "fake_args": "--double_fork"})
    assert loaded.status_code == 200
    (notice,) = loaded.json()["notices"]
    assert "changes nothing" in notice
    assert notice in server.log()
    assert command(server, "one").count("--double-fork") == 1


def test_a_broken_registry_fails_its_models_and_nobody_else(home: Path, catalog: Path) -> None:
    (catalog / "fakes.json").write_text('{"schema_version": 1,\n}')
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        failed = server.post("load", {"model_name": "one"})
        assert failed.status_code == 500
        assert "fakes.json" in failed.text
        assert "line 2" in failed.text
        assert server.get("models").status_code == 200
    assert (catalog / "fakes.json").exists()


def test_a_context_is_planned_from_what_lies_beside_the_weights(
    server: Serving, catalog: Path
) -> None:
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    config = {**shape, "max_position_embeddings": 1234}
    (catalog / "config.json").write_text(json.dumps(config))
    assert server.post("load", {"model_name": "one"}).status_code == 200
    words = command(server, "one")
    assert words[words.index("--ctx-size") + 1] == "1234"
    refused = server.post("load", {"model_name": "one", "ctx_size": 4096})
    assert refused.status_code == 400
    assert "4096" in refused.text
    assert "1234" in refused.text
    assert command(server, "one") == words


# ---- a second try


def test_a_context_that_does_not_fit_is_tried_again_with_the_number_it_said(
    server: Serving,
) -> None:
    body = {"model_name": "one", "ctx_size": 8192, "fake_args": "--room-for 1500"}
    loaded = server.post("load", body)
    assert loaded.status_code == 200, loaded.text
    assert any("1500 tokens" in notice for notice in loaded.json()["notices"])
    words = command(server, "one")
    assert words[words.index("--ctx-size") + 1] == "1500"
    assert server.chat("one").status_code == 200
    assert server.log().count("one: starting ") == 2


def test_there_is_no_third_try(server: Serving) -> None:
    body = {"model_name": "one", "fake_args": "--room-for 1500 --exit-at-start 4"}
    failed = server.post("load", {**body, "ctx_size": 8192})
    assert failed.status_code == 500
    assert failed.json()["error"]["facts"]["exit_status"] == 4
    assert server.log().count("one: starting ") == 2
    assert not server.loaded()
