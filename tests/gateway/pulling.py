"""A hub for a whole file of tests, and what a client sees of pulls from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.checkpoints.hub_fixture import downloads_of, requests_of, write_repository
from tests.serving import ROOT, Serving, eventually

HELLO: Final = "Hello! How can I help you today?"
LEMON: Final = (ROOT / "models" / "tiny-lemon-Q8_0.gguf").read_bytes()
BIG: Final = 3_000_000
FRAME: Final = frozenset(
    {
        "file",
        "file_index",
        "total_files",
        "bytes_downloaded",
        "bytes_total",
        "total_download_size",
        "bytes_previously_downloaded",
        "percent",
    }
)
"""The keys of a `progress` or `complete` event."""


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
