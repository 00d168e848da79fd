"""Pulling and deleting models, from a hub on the loopback to an answer of the real engine."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    requests_of,
    running_hub,
    set_faults,
    write_repository,
)
from tests.serving import ROOT, Serving, eventually, serving, survivors

pytestmark = pytest.mark.engine

HELLO = "Hello! How can I help you today?"
LEMON = (ROOT / "models" / "tiny-lemon-Q8_0.gguf").read_bytes()
EMBED = (ROOT / "models" / "tiny-embed-F16.gguf").read_bytes()
BIG = 3_000_000
FRAME = {
    "file",
    "file_index",
    "total_files",
    "bytes_downloaded",
    "bytes_total",
    "total_download_size",
    "bytes_previously_downloaded",
    "percent",
}


@dataclass
class Hub:
    """The hub all tests of this file pull from; every test has repositories of its own."""

    root: Path
    url: str

    def offer(self, repository: str, **files: bytes) -> None:
        """Files by name, with `_` for the last dot: `x_gguf` is `x.gguf`."""
        renamed = {".".join(name.rsplit("_", 1)): data for name, data in files.items()}
        write_repository(self.root, repository, renamed)

    def contents_sent(self, repository: str) -> list[str]:
        """The files of a repository whose contents somebody fetched."""
        paths = [asked["path"] for asked in downloads_of(self.url)]
        return [path.rpartition("/")[2] for path in paths if f"/{repository}/" in path]

    def wait_until_left(self, repository: str) -> None:
        """Wait until a download that the hub keeps waiting has been given up by the server."""
        eventually(
            lambda: any(
                asked.get("left") and f"/{repository}/" in asked["path"]
                for asked in requests_of(self.url)
            ),
            "the server has hung up",
        )


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("repositories")
    with running_hub(root, "--gated", "o/gated-*", "--token", "sesame") as url:
        yield Hub(root, url)


@pytest.fixture
def hub(shared_hub: Hub) -> Iterator[Hub]:
    yield shared_hub
    set_faults(shared_hub.url)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path, shared_hub: Hub
) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("pull")
    with serving(home, env={"HF_ENDPOINT": shared_hub.url}, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)


def definition(name: str, checkpoint: str, **more: object) -> dict[str, object]:
    return {"model": f"user.{name}", "recipe": "llamacpp", "checkpoint": checkpoint, **more}


def pull(server: Serving, name: str, checkpoint: str, **more: object) -> dict[str, Any]:
    """Pull, and the model object afterwards."""
    reply = server.post("pull", definition(name, checkpoint, **more))
    assert reply.status_code == 200, reply.text
    row: dict[str, Any] = server.get(f"models/user.{name}").json()
    return row


def known(server: Serving, name: str) -> bool:
    rows = server.get("models?show_all=true").json()["data"]
    return name in {row["id"] for row in rows}


def files_of(server: Serving, repository: str) -> set[str]:
    """What the hub cache has of a repository, in the layout all tools share."""
    folder = server.home / "hub" / f"models--{repository.replace('/', '--')}"
    return {
        path.relative_to(snapshot).as_posix()
        for snapshot in folder.glob("snapshots/*")
        for path in snapshot.rglob("*")
        if path.is_file()
    }


def left_of(server: Serving, repository: str) -> list[Path]:
    """Contents of a repository, whole and half."""
    folder = server.home / "hub" / f"models--{repository.replace('/', '--')}"
    return sorted(folder.glob("blobs/*"))


def wait_for_bytes(server: Serving, repository: str, count: int) -> None:
    """Wait until that much of a file is here, and the rest is not."""
    eventually(
        lambda: [path.stat().st_size for path in left_of(server, repository)] == [count],
        f"{count} bytes have come",
    )


class Events:
    """The stream of a pull, event by event."""

    def __init__(self, server: Serving, body: dict[str, object]) -> None:
        self.reply = server.post("pull", {**body, "stream": True}, stream=True)
        assert self.reply.status_code == 200, self.reply.text
        assert self.reply.headers["Content-Type"].startswith("text/event-stream")
        assert self.reply.headers["X-Accel-Buffering"] == "no"
        self._lines = self.reply.iter_lines(decode_unicode=True, chunk_size=1)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self._lines:
            if line.startswith("event: "):
                data = next(self._lines)
                assert data.startswith("data: ")
                yield line[7:], json.loads(data[6:])


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


# ---- what goes wrong


@pytest.mark.parametrize(
    ("checkpoint", "status", "words"),
    [
        ("o/nothing-here:Q8_0", 404, ["o/nothing-here", "HF_TOKEN"]),
        ("o/some-GGUF:Q2_K", 404, ["Q2_K", "Q8_0"]),
        ("o/gated-GGUF:Q8_0", 403, ["o/gated-GGUF", "HF_TOKEN", "terms"]),
        ("o/page-GGUF:Q8_0", 500, ["page-Q8_0.gguf", "damaged"]),
    ],
)
def test_a_pull_that_fails_leaves_nothing(
    server: Serving, hub: Hub, checkpoint: str, status: int, words: list[str]
) -> None:
    hub.offer("o/some-GGUF", **{"some-Q8_0_gguf": gguf(900)})
    hub.offer("o/gated-GGUF", **{"gated-Q8_0_gguf": gguf(900)})
    hub.offer("o/page-GGUF", **{"page-Q8_0_gguf": b"<html>" * 900})
    reply = server.post("pull", definition("fails", checkpoint))
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    for word in words:
        assert word in reply.json()["error"]
    assert not known(server, "fails")
    assert left_of(server, checkpoint.partition(":")[0]) == []


def test_a_hub_nobody_can_reach(home: Path) -> None:
    with serving(home) as server:  # its hub is a port where nobody listens
        reply = server.post("pull", definition("far", "o/far-GGUF:Q8_0"))
        assert reply.status_code == 502
        assert "127.0.0.1:9 cannot be reached" in reply.json()["error"]
        assert "HF_ENDPOINT" in reply.json()["error"]
        assert not known(server, "far")
        assert server.get("pull/variants?checkpoint=o/far-GGUF").status_code == 502
        offline = {"offline": True}
        requests.post(f"{server.url}/internal/set", json=offline, timeout=10).raise_for_status()
        reply = server.post("pull", definition("far", "o/far-GGUF:Q8_0"))
        assert reply.status_code == 400
        assert reply.json()["code"] == "lemond_offline"
        assert not known(server, "far")


def test_a_hub_that_is_down_for_a_known_model(server: Serving, hub: Hub) -> None:
    """What is here stays usable, and is not asked for."""
    hub.offer("o/down-GGUF", **{"down-Q8_0_gguf": LEMON})
    pull(server, "down", "o/down-GGUF:Q8_0")
    set_faults(hub.url, {"path": "*", "where": "listing", "kind": "status", "status": 404})
    failed = server.post("pull", {"model": "user.down"})
    assert failed.status_code == 404
    assert server.get("models/down").json()["downloaded"] is True
    assert server.chat("down").json()["choices"][0]["message"]["content"] == HELLO


def test_wrong_bytes_are_not_a_model(server: Serving, hub: Hub) -> None:
    hub.offer("o/wrong-GGUF", **{"wrong-Q8_0_gguf": gguf(9000)})
    set_faults(hub.url, {"path": "o/wrong-GGUF/*", "kind": "wrong"})
    reply = server.post("pull", definition("wrong", "o/wrong-GGUF:Q8_0"))
    assert reply.status_code == 500
    assert "SHA-256" in reply.json()["error"]
    assert left_of(server, "o/wrong-GGUF") == []
    set_faults(hub.url)
    assert pull(server, "wrong", "o/wrong-GGUF:Q8_0")["downloaded"]


def test_a_disk_that_fills_up(home: Path, hub: Hub) -> None:
    """The kernel lets no file of the server grow any further: as on a full disk."""
    hub.offer("o/fills-GGUF", **{"fills-Q8_0_gguf": gguf(BIG, 7)})
    with serving(home, env={"HF_ENDPOINT": hub.url}) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (BIG // 2, limits[1]))
        reply = server.post("pull", definition("fills", "o/fills-GGUF:Q8_0"))
        assert reply.status_code == 507
        assert "disk is full" in reply.json()["error"]
        assert "pull again" in reply.json()["error"]
        assert not known(server, "fills")
        assert files_of(server, "o/fills-GGUF") == set()
        assert server.get("health").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        *_, (name, frame) = Events(server, definition("fills", "o/fills-GGUF:Q8_0"))
        assert name == "complete"
        assert frame["bytes_previously_downloaded"] == BIG // 2


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = home / "hub"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no `mount`")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_what_does_not_fit_is_not_begun(small_disk: Path, home: Path, hub: Hub) -> None:
    hub.offer("o/fits-GGUF", **{"fits-Q8_0_gguf": gguf(BIG, 8), "fits-Q4_0_gguf": gguf(500_000)})
    with serving(home, env={"HF_ENDPOINT": hub.url}) as server:
        reply = server.post("pull", definition("fits", "o/fits-GGUF:Q8_0"))
        assert reply.status_code == 507
        assert "3.0 MB are needed" in reply.json()["error"]
        assert "models_dir" in reply.json()["error"]
        assert not known(server, "fits")
        assert not list(small_disk.rglob("*.incomplete"))
        assert pull(server, "fits", "o/fits-GGUF:Q4_0")["downloaded"]


# ---- interrupted, together, alone


def test_a_client_that_leaves_ends_the_download_and_the_next_continues(
    server: Serving, hub: Hub
) -> None:
    hub.offer("o/left-GGUF", **{"left-Q8_0_gguf": gguf(BIG, 9)})
    # Were the first download still on, the second pull would join it and wait for ever.
    set_faults(hub.url, {"path": "o/left-GGUF/*", "kind": "stall", "after": BIG // 3, "times": 1})
    body = definition("left", "o/left-GGUF:Q8_0")
    events = Events(server, body)
    wait_for_bytes(server, "o/left-GGUF", BIG // 3)
    events.reply.close()
    hub.wait_until_left("o/left-GGUF")
    assert server.get("models/left").json()["downloaded"] is False
    frames = list(Events(server, {"model": "user.left"}))
    assert frames[-1][0] == "complete"
    assert frames[-1][1]["bytes_previously_downloaded"] == BIG // 3
    assert server.get("models/left").json()["downloaded"] is True


def test_two_pulls_share_one_download(server: Serving, hub: Hub) -> None:
    hub.offer("o/shared-GGUF", **{"shared-Q8_0_gguf": gguf(BIG, 10)})
    set_faults(hub.url, {"path": "o/shared-GGUF/*", "kind": "hold", "after": BIG // 3})
    body = definition("shared", "o/shared-GGUF:Q8_0")
    with ThreadPoolExecutor(1) as threads:
        leaves, stays = Events(server, body), Events(server, body)
        waits = threads.submit(server.post, "pull", body)
        wait_for_bytes(server, "o/shared-GGUF", BIG // 3)
        for events in (leaves, stays):
            assert next(iter(events))[1]["bytes_total"] == BIG
        leaves.reply.close()
        set_faults(hub.url)  # the hub goes on
        *_, (name, frame) = stays
        assert (name, frame["bytes_downloaded"]) == ("complete", BIG)
        assert waits.result(30).json()["status"] == "success"
    assert hub.contents_sent("o/shared-GGUF") == ["shared-Q8_0.gguf"]


def test_a_download_of_its_own(server: Serving, hub: Hub) -> None:
    hub.offer("o/own-GGUF", **{"own-Q8_0_gguf": gguf(BIG, 11)})
    set_faults(hub.url, {"path": "o/own-GGUF/*", "kind": "hold", "after": BIG // 3})
    body = {**definition("own", "o/own-GGUF:Q8_0"), "stream": True, "subscribe": False}
    first, second = (server.post("pull", body) for _ in range(2))
    assert first.headers["Content-Type"].startswith("application/json")
    snapshot = first.json()
    assert snapshot["id"] == second.json()["id"] == "model:user.own"
    assert set(snapshot) > FRAME
    assert snapshot["type"] == "model"
    assert snapshot["model_name"] == "user.own"
    assert snapshot["status"] == "downloading"
    assert snapshot["running"] is True
    assert snapshot["complete"] is False
    assert server.get("models/own").json()["downloaded"] is False
    set_faults(hub.url)
    eventually(lambda: server.get("models/own").json()["downloaded"], "it goes on alone")
    assert server.get("models/own").json()["size"] == pytest.approx(BIG / 1e9)


# ---- use


def test_the_first_chat_continues_what_was_interrupted(server: Serving, hub: Hub) -> None:
    hub.offer("o/auto-GGUF", **{"auto-Q8_0_gguf": LEMON})
    set_faults(hub.url, {"path": "o/auto-GGUF/*", "kind": "stall", "after": 300_000, "times": 1})
    events = Events(server, definition("auto", "o/auto-GGUF:Q8_0"))
    wait_for_bytes(server, "o/auto-GGUF", 300_000)
    events.reply.close()
    hub.wait_until_left("o/auto-GGUF")
    with ThreadPoolExecutor(3) as threads:
        replies = list(threads.map(lambda _: server.chat("auto"), range(3)))
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"] == HELLO
    row = server.get("models/auto").json()
    assert row["downloaded"] is True
    assert row["size"] == pytest.approx(len(LEMON) / 1e9)
    continued = [a["range"] for a in downloads_of(hub.url) if "/o/auto-GGUF/" in a["path"]]
    assert continued == ["", "bytes=300000-"]


def test_a_builtin_model_is_fetched_by_its_first_request(server: Serving, hub: Hub) -> None:
    registry = json.loads((ROOT / "server_models.json").read_text())
    name, entry = next(
        (name, entry)
        for name, entry in sorted(registry.items(), key=lambda item: item[1].get("size", 0))
        if entry["recipe"] == "llamacpp"
        and "embeddings" in entry["labels"]
        and entry.get("source", "huggingface") == "huggingface"
    )
    repository, _, variant = entry["checkpoint"].partition(":")
    file = variant if variant.endswith(".gguf") else f"e-{variant}.gguf"
    lost = server.post("embeddings", {"model": name, "input": "hello"})
    assert lost.status_code == 500
    error = lost.json()["error"]
    assert error["code"] == "model_load_error"
    assert error["requested_model"] == name
    assert repository in error["message"]
    write_repository(hub.root, repository, {file: EMBED})
    reply = server.post("embeddings", {"model": name, "input": "hello"})
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["data"][0]["embedding"]) == 64
    assert server.post("delete", {"model": name}).status_code == 200
    assert files_of(server, repository) == set()
    assert known(server, name), "a built-in model can be pulled again"
    assert server.get(f"models/{name}").json()["downloaded"] is False


# ---- deletion


def test_a_deleted_model_is_unloaded_and_its_files_go(server: Serving, hub: Hub) -> None:
    hub.offer("o/gone-GGUF", **{"gone-Q8_0_gguf": LEMON, "config_json": b"{}"})
    pull(server, "gone", "o/gone-GGUF:Q8_0")
    saved = {"model_name": "gone", "ctx_size": 512, "save_options": True}
    assert server.post("load", saved).status_code == 200
    pid = server.loaded()["gone"]["pid"]
    reply = server.post("delete", {"model_name": "user.gone"})
    assert reply.status_code == 200
    assert reply.json()["status"] == "success"
    assert "user.gone" in reply.json()["message"]
    assert "gone" not in server.loaded()
    assert not Path(f"/proc/{pid}").exists()
    assert not (server.home / "hub" / "models--o--gone-GGUF").exists()
    assert not known(server, "gone")
    assert server.post("delete", {"model": "user.gone"}).status_code == 422
    assert pull(server, "gone", "o/gone-GGUF:Q8_0")["recipe_options"] == {}


def test_files_that_another_model_uses_stay(server: Serving, hub: Hub) -> None:
    files = {"s-Q8_0_gguf": LEMON, "s-Q4_0_gguf": gguf(900), "mmproj-F16_gguf": gguf(700)}
    hub.offer("o/both-GGUF", **files)
    pull(server, "one", "o/both-GGUF:Q8_0", mmproj="mmproj-F16.gguf")
    pull(server, "other", "o/both-GGUF:Q4_0", mmproj="mmproj-F16.gguf")
    pull(server, "same", "o/both-GGUF:Q4_0")
    assert server.post("delete", {"model": "user.one"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == {"s-Q4_0.gguf", "mmproj-F16.gguf"}
    assert server.get("models/other").json()["downloaded"] is True
    assert server.post("delete", {"model": "user.other"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == {"s-Q4_0.gguf"}
    assert server.get("models/same").json()["downloaded"] is True
    assert server.post("delete", {"model": "user.same"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == set()


def test_what_is_part_of_lemonade_stays_as_it_is(server: Serving) -> None:
    assert server.chat("Tiny-Lemon-GGUF").status_code == 200
    pid = server.loaded()["Tiny-Lemon-GGUF"]["pid"]
    reply = server.post("delete", {"model": "Tiny-Lemon-GGUF"})
    assert reply.status_code == 400
    assert "part of Lemonade" in reply.json()["error"]
    assert server.loaded()["Tiny-Lemon-GGUF"]["pid"] == pid
    unknown = server.post("delete", {"model": "Tiny-Lemon-GUFF"})
    assert unknown.status_code == 422
    assert "Tiny-Lemon-GGUF" in unknown.json()["error"]


def test_deleting_what_is_being_fetched(server: Serving, hub: Hub) -> None:
    hub.offer("o/midway-GGUF", **{"midway-Q8_0_gguf": gguf(BIG, 12)})
    set_faults(hub.url, {"path": "o/midway-GGUF/*", "kind": "hold", "after": BIG // 3})
    events = Events(server, definition("midway", "o/midway-GGUF:Q8_0"))
    wait_for_bytes(server, "o/midway-GGUF", BIG // 3)
    assert server.post("delete", {"model": "user.midway"}).status_code == 200
    *_, (name, data) = events
    assert name == "error"
    assert "cancelled" in data["error"]
    assert not known(server, "midway")
    assert left_of(server, "o/midway-GGUF") == []
