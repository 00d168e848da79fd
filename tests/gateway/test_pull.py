"""Pulling models: what is registered, what is fetched, and what the client hears."""

from __future__ import annotations

import pytest

from tests.checkpoints.hub_fixture import (
    gguf,
    write_repository,
)
from tests.gateway.pulling import (
    BIG,
    FRAME,
    LEMON,
    Events,
    Hub,
    definition,
    files_of,
    known,
    pull,
)
from tests.serving import Serving

pytestmark = pytest.mark.engine


# ---- what a pull says


def test_a_pull_answers_when_everything_is_here(server: Serving, hub: Hub) -> None:
    hub.offer("o/plain-GGUF", **{"plain-Q8_0_gguf": LEMON, "config_json": b"{}"})
    body = definition("plain", "o/plain-GGUF:Q8_0")
    reply = server.post("pull", body)
    assert reply.status_code == 200
    assert reply.json() == {"status": "success", "model_name": "user.plain"}
    row = server.get("models/plain").json()
    assert row["id"] == "plain"
    assert row["downloaded"] is True
    assert row["checkpoint"] == "o/plain-GGUF:Q8_0"
    assert row["recipe"] == "llamacpp"
    assert row["labels"] == ["chat", "custom"]
    assert row["registry_source"] == "huggingface"
    assert row["size"] == pytest.approx(len(LEMON) / 1e9)
    assert row["max_context_window"] == 4096
    again = server.post("pull", {**body, "model": None, "model_name": "user.plain"})
    assert again.json() == {"status": "success", "model_name": "user.plain"}


def test_a_pull_tells_how_far_it_is(server: Serving, hub: Hub) -> None:
    hub.offer("o/told-GGUF", **{"told-Q8_0_gguf": gguf(BIG), "config_json": b"{}"})
    events = list(Events(server, definition("told", "o/told-GGUF:Q8_0")))
    assert [name for name, _ in events[:-1]] == ["progress"] * (len(events) - 1)
    assert all(set(frame) == FRAME for _, frame in events)
    first, (last_name, last) = events[0][1], events[-1]
    assert first["file"] == "told-Q8_0.gguf"
    assert (first["file_index"], first["total_files"]) == (1, 2)
    assert first["bytes_total"] == BIG
    assert first["total_download_size"] == BIG + 2
    assert first["bytes_previously_downloaded"] == 0
    assert last_name == "complete"
    assert (last["file_index"], last["percent"]) == (2, 100)
    ours = [frame["bytes_downloaded"] for _, frame in events if frame["file_index"] == 1]
    assert ours == sorted(ours)
    assert ours[-1] == BIG


def test_nothing_to_do_is_one_event(server: Serving) -> None:
    ((name, frame),) = Events(server, {"model": "Tiny-Lemon-GGUF"})
    assert name == "complete"
    assert set(frame) == FRAME
    assert frame["percent"] == 100


def test_an_error_in_a_stream_is_its_last_event(server: Serving, hub: Hub) -> None:
    hub.offer("o/html-GGUF", **{"html-Q8_0_gguf": b"<html>not a model</html>"})
    *_, (name, data) = Events(server, definition("html", "o/html-GGUF:Q8_0"))
    assert name == "error"
    assert set(data) == {"error"}
    assert "GGUF" in data["error"]
    assert not known(server, "html")


# ---- registration


def test_everything_a_definition_may_say(server: Serving, hub: Hub) -> None:
    files = {"m-Q8_0_gguf": LEMON, "mmproj-F16_gguf": gguf(700, 1)}
    hub.offer("o/all-GGUF", **files)
    body = {
        "model_name": "user.all",
        "recipe": "llamacpp",
        "checkpoints": {"main": "o/all-GGUF:Q8_0", "mmproj": "o/all-GGUF:mmproj-F16.gguf"},
        "labels": ["vision", "coding"],
        "recipe_options": {"ctx_size": 512},
    }
    assert server.post("pull", body).status_code == 200
    row = server.get("models/all").json()
    assert row["checkpoints"] == body["checkpoints"]
    assert set(row["labels"]) == {"chat", "coding", "custom", "vision"}
    assert row["recipe_options"] == {"ctx_size": 512}
    assert row["context_length"] == 512
    assert files_of(server, "o/all-GGUF") == {"m-Q8_0.gguf", "mmproj-F16.gguf"}
    # What the server shows of a model is a definition of it, for another server or a person.
    exported = {**row, "model_name": "user.all"}
    assert server.post("pull", exported).status_code == 200
    renamed = {**row, "model_name": "user.all-again"}
    assert server.post("pull", renamed).status_code == 200
    again = server.get("models/all-again").json()
    assert {**again, "id": "all"} == row


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "mine", "recipe": "llamacpp", "checkpoint": "o/r:Q8_0"}, ["user.mine"]),
        ({"model": "extra.mine", "recipe": "llamacpp", "checkpoint": "o/r:Q8_0"}, ["user."]),
        ({"model": "user.user.mine", "recipe": "llamacpp", "checkpoint": "o/r:Q8"}, ["user.mine"]),
        ({"model": "user.a/b", "recipe": "llamacpp", "checkpoint": "o/r:Q8"}, ["user.a-b"]),
        ({"model": "user.x", "checkpoint": "o/r:Q8_0"}, ["'recipe'"]),
        ({"model": "user.x", "recipe": "llamacpp"}, ["'checkpoint'", "owner/repo"]),
        ({"model": "user.x", "recipe": "lamacpp", "checkpoint": "o/r:Q8"}, ["llamacpp"]),
        (
            {"model": "user.x", "recipe": "llamacpp", "checkpoint": "o/r"},
            ["variant", "o/r:Q4_K_M"],
        ),
        ({"model": "user.x", "recipe": "llamacpp", "checkpoint": "../r:Q8"}, ["owner/repo"]),
        ({"model": "user.x", "recipe": "llamacpp", "checkpoint": "o/r:../x"}, ["leaves"]),
        ({"model": "user.x", "recipe": "llamacpp", "checkpoints": {"vae": "o/r:x"}}, ["main"]),
        (definition("x", "o/r:Q8_0", labels=["chat", "embeddings"]), ["one mode"]),
        (definition("x", "o/r:Q8_0", labels=["tts"]), ["tts"]),
        (definition("x", "o/r:Q8_0", recipe_options={"ctx_sizes": 1}), ["ctx_size"]),
        (definition("x", "o/r:Q8_0", recipe_options={"llamacpp_args": "--port 1"}), ["--port"]),
        (definition("x", "o/r:Q8_0", source="modelscope"), ["ModelScope"]),
        (definition("x", "/etc/passwd", source="local_path"), ["/etc/passwd", "GGUF"]),
    ],
)
def test_a_definition_that_cannot_be(
    server: Serving, body: dict[str, object], words: list[str]
) -> None:
    reply = server.post("pull", body)
    assert reply.status_code in (400, 500)
    assert reply.status_code == 400 or body.get("source") == "local_path"
    assert set(reply.json()) == {"error"}
    for word in words:
        assert word in reply.json()["error"]
    for name in ("x", "mine", "a-b"):
        assert not known(server, name)


def test_a_name_nobody_has_is_told_by_its_code(server: Serving) -> None:
    for streaming in (False, True):
        reply = server.post("pull", {"model": "Tiny-Lemon-GUFF", "stream": streaming})
        assert reply.status_code == 400
        assert reply.json()["code"] == "unknown_model"
        assert "Tiny-Lemon-GGUF" in reply.json()["error"]


def test_empty_fields_define_nothing(server: Serving) -> None:
    body = {"model": "Tiny-Lemon-GGUF", "recipe": "", "checkpoint": "", "checkpoints": {}}
    assert server.post("pull", body).status_code == 200


def test_another_definition_under_the_same_name(server: Serving, hub: Hub) -> None:
    hub.offer("o/two-GGUF", **{"two-Q8_0_gguf": gguf(5000), "two-Q4_0_gguf": gguf(4000, 1)})
    before = pull(server, "two", "o/two-GGUF:Q8_0")
    reply = server.post("pull", definition("two", "o/two-GGUF:Q4_0"))
    assert reply.status_code == 409
    for word in ("o/two-GGUF:Q8_0", "o/two-GGUF:Q4_0", "lemonade delete user.two"):
        assert word in reply.json()["error"]
    assert server.get("models/two").json() == before
    assert files_of(server, "o/two-GGUF") == {"two-Q8_0.gguf"}


@pytest.mark.parametrize(
    ("variant", "files"),
    [
        ("Q8_0", {"a-Q8_0.gguf"}),
        ("q8_0", {"a-Q8_0.gguf"}),
        ("a-Q4_K_M.gguf", {"a-Q4_K_M.gguf"}),
        ("deep", {"deep/b-F16.gguf"}),
        ("Q5_K_M", {"a-Q5_K_M-00001-of-00002.gguf", "a-Q5_K_M-00002-of-00002.gguf"}),
        ("a-Q5_K_M-00002-of-00002.gguf",
         {"a-Q5_K_M-00001-of-00002.gguf", "a-Q5_K_M-00002-of-00002.gguf"}),
    ],
)  # fmt: skip
def test_variants(server: Serving, hub: Hub, variant: str, files: set[str]) -> None:
    repository = f"o/v-{variant.replace('_', '').replace('.', '')}-GGUF"
    content = {
        "a-Q8_0.gguf": gguf(900, 1),
        "a-Q4_K_M.gguf": gguf(800, 2),
        "a-Q5_K_M-00001-of-00002.gguf": gguf(700, 3),
        "a-Q5_K_M-00002-of-00002.gguf": gguf(600, 4),
        "deep/b-F16.gguf": gguf(500, 5),
        "mmproj-F16.gguf": gguf(400, 6),
        "README.md": b"# a",
        "config.json": b"{}",
    }
    write_repository(hub.root, repository, content)
    row = pull(server, f"v-{variant}", f"{repository}:{variant}", mmproj="mmproj-F16.gguf")
    assert row["downloaded"]
    assert files_of(server, repository) == files | {"mmproj-F16.gguf", "config.json"}
    whole = sum(len(content[name]) for name in files | {"mmproj-F16.gguf"})
    assert row["size"] == pytest.approx(whole / 1e9)


def test_a_repository_can_be_looked_into(server: Serving, hub: Hub) -> None:
    files = {"see-Q8_0_gguf": gguf(900), "see-Q4_K_M_gguf": gguf(800), "mmproj-F16_gguf": gguf(9)}
    hub.offer("o/see-GGUF", **files)
    offer = server.get("pull/variants?checkpoint=o/see-GGUF").json()
    assert offer == {
        "checkpoint": "o/see-GGUF",
        "source": "huggingface",
        "recipe": "llamacpp",
        "repo_kind": "gguf",
        "suggested_name": "see-GGUF",
        "suggested_labels": ["vision", "chat"],
        "mmproj_files": ["mmproj-F16.gguf"],
        "draft_files": [],
        "variants": [
            {
                "name": name,
                "primary_file": f"see-{name}.gguf",
                "files": [f"see-{name}.gguf"],
                "sharded": False,
                "size_bytes": size,
            }
            for name, size in (("Q4_K_M", 800), ("Q8_0", 900))
        ],
    }
    for query, status, word in (
        ("", 400, "checkpoint"),
        ("?checkpoint=see", 400, "owner/repo"),
        ("?checkpoint=../see", 400, "owner/repo"),
        ("?checkpoint=o/see-GGUF&source=nowhere", 400, "nowhere"),
        ("?checkpoint=https://huggingface.co/o/see-GGUF&source=modelscope", 400, "source"),
        ("?checkpoint=o/nothing", 404, "o/nothing"),
    ):
        reply = server.get(f"pull/variants{query}")
        assert reply.status_code == status, query
        assert word in reply.json()["error"]


# ---- again


def test_a_second_pull_fetches_nothing(server: Serving, hub: Hub) -> None:
    hub.offer("o/again-GGUF", **{"again-Q8_0_gguf": gguf(9000), "config_json": b"{}"})
    body = definition("again", "o/again-GGUF:Q8_0")
    first = pull(server, "again", "o/again-GGUF:Q8_0")
    *_, (name, frame) = Events(server, body)
    assert name == "complete"
    assert frame["bytes_previously_downloaded"] == frame["bytes_total"] == 2
    assert server.get("models/again").json() == first
    assert sorted(hub.contents_sent("o/again-GGUF")) == ["again-Q8_0.gguf", "config.json"]


def test_a_pull_updates_unless_told_not_to(server: Serving, hub: Hub) -> None:
    hub.offer("o/news-GGUF", **{"news-Q8_0_gguf": gguf(5000, 1)})
    assert pull(server, "news", "o/news-GGUF:Q8_0")["size"] == pytest.approx(5000 / 1e9)
    hub.offer("o/news-GGUF", **{"news-Q8_0_gguf": gguf(6000, 2)})
    stay = server.post("pull", {"model": "user.news", "do_not_upgrade": True})
    assert stay.status_code == 200
    assert server.get("models/news").json()["size"] == pytest.approx(5000 / 1e9)
    assert server.post("pull", {"model": "user.news"}).status_code == 200
    assert server.get("models/news").json()["size"] == pytest.approx(6000 / 1e9)
