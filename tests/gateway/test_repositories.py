"""Models that are whole repositories: the engine is given their folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.pulling import Hub, files_of
from tests.serving import Serving, fake_catalog, serving, survivors

pytestmark = pytest.mark.slow

FILES = {"config_json": b"{}", "model_safetensors": b"weights", "tokenizer_json": b"{}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_hub: Hub) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("repositories")
    catalog = fake_catalog(home, files="repository")
    env = {"HF_ENDPOINT": shared_hub.url, "LEMONADE_CATALOG": str(catalog)}
    with serving(home, env=env) as one:
        yield one
    assert not survivors(home)


def given_to_the_engine(server: Serving, name: str) -> Path:
    """What follows `--model` on the command line of the model's engine."""
    reply = server.post("load", {"model_name": name})
    assert reply.status_code == 200, reply.text
    pid = server.loaded()[name]["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    assert server.post("unload", {"model_name": name}).status_code == 200
    return Path(words[words.index("--model") + 1])


def test_a_pulled_one_is_its_snapshot(server: Serving, hub: Hub) -> None:
    hub.offer("o/whole", **FILES)
    body = {"model": "user.whole", "recipe": "fake", "checkpoint": "o/whole"}
    assert server.post("pull", body).status_code == 200
    assert files_of(server, "o/whole") == {"config.json", "model.safetensors", "tokenizer.json"}
    given = given_to_the_engine(server, "whole")
    assert given.parent == server.home / "hub" / "models--o--whole" / "snapshots"
    assert (given / "model.safetensors").read_bytes() == b"weights"


def test_one_of_the_operators_own_is_where_it_lies(server: Serving) -> None:
    folder = server.home / "my models" / "whole"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    body = {
        "model": "user.mine",
        "recipe": "fake",
        "checkpoint": str(folder),
        "source": "local_path",
    }
    assert server.post("pull", body).status_code == 200
    assert given_to_the_engine(server, "mine") == folder
    assert server.post("delete", {"model": "user.mine"}).status_code == 200
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
