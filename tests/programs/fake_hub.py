"""A Hugging Face hub on the loopback, serving folders; with faults on demand.

```
python tests/programs/fake_hub.py --root DIR [--port 0] [--cdn] [--token T]
                                  [--gated GLOB]... [--private GLOB]... [--fault JSON]...
```

The first line on standard output is its URL, for HF_ENDPOINT. Standard library only.

`DIR/owner/repo/...` is the repository `owner/repo`. What lies there now is its branch `main`; the
commit's name is computed from paths and contents, so it changes when they do, and other commits
do not exist. Weights (.gguf, .safetensors, .bin, .onnx, or any file above 64 KiB) are in
large-file storage: named by SHA-256; everything else by git's SHA-1.

--root DIR     the repositories
--port N       0 takes a free one
--cdn          large files are redirected to another origin (`localhost` instead of `127.0.0.1`)
               as the real hub does; that origin refuses requests that carry a token
--token T      the token that opens gated and private repositories
--gated GLOB   repositories that are listed for everybody, and read with the token only
--private GLOB repositories that nobody without the token knows of
--fault JSON   a fault, see below; may be given often

A fault is an object; `path` is a glob on `owner/repo/path/of/file` for contents, or on
`owner/repo` for listings (`"where": "listing"`; only `status` and `stall`). The first that
matches and is not used up counts.

    {"path": "o/r/*.gguf", "kind": "status", "status": 500, "times": 2}   answer with a status
    {"path": "o/r/x", "kind": "cut", "after": 1000, "times": 1}           hang up after N bytes
    {"path": "o/r/x", "kind": "stall", "after": 1000, "times": 1}         N bytes, then silence
                                                                          till the client leaves
    {"path": "o/r/x", "kind": "hold", "after": 1000}                      N bytes, the rest once
                                                                          the faults are replaced
    {"path": "o/r/x", "kind": "slow", "bytes_per_second": 100000}
    {"path": "o/r/x", "kind": "wrong"}                                    other bytes, same length
    {"path": "o/r/x", "kind": "whole"}                                    ignore Range
    {"path": "o/r/x", "kind": "expired"}                                  answer Range with 416

While it runs:

    GET  /-/requests   the requests so far: [{"method", "path", "range", "token", "status"}],
                       with "left" where the client hung up on a "hold" or "stall"
    POST /-/faults     replaces all faults with the JSON array in the body
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import json
import re
import select
import socket
import sys
import threading
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin", ".onnx")
PIECE = 16384


@lru_cache(maxsize=4096)
def digests(path: str, size: int, mtime: int) -> tuple[str, str]:
    """SHA-256 and git's SHA-1 of a file; size and time are only there to notice changes."""
    data = Path(path).read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return hashlib.sha256(data).hexdigest(), git.hexdigest()


class Entry:
    def __init__(self, root: Path, path: Path) -> None:
        stat = path.stat()
        self.file = path
        self.path = path.relative_to(root).as_posix()
        self.size = stat.st_size
        self.sha256, self.oid = digests(str(path), stat.st_size, stat.st_mtime_ns)
        self.large = self.path.endswith(LARGE) or self.size > 65536

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid

    def sibling(self) -> dict[str, Any]:
        row: dict[str, Any] = {"rfilename": self.path, "size": self.size, "blobId": self.oid}
        if self.large:
            row["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": 130}
        return row

    def tree_row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "type": "file",
            "path": self.path,
            "size": self.size,
            "oid": self.oid,
        }
        if self.large:
            row["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 130}
        return row


class Repository:
    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.entries = {
            entry.path: entry
            for entry in (Entry(root, p) for p in sorted(root.rglob("*")) if p.is_file())
        }
        tree = "".join(f"{e.path} {e.oid}\n" for e in self.entries.values())
        self.commit = hashlib.sha1(tree.encode(), usedforsecurity=False).hexdigest()


class State:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.root = Path(options.root)
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = [json.loads(text) for text in options.fault]
        self.port = 0
        self.replaced = 0

    def fault(self, path: str, where: str) -> dict[str, Any]:
        with self.lock:
            for fault in self.faults:
                if fault.get("where", "content") != where or fault.get("times") == 0:
                    continue
                if fnmatch.fnmatch(path, fault["path"]):
                    if "times" in fault:
                        fault["times"] -= 1
                    # Whoever holds must know which set of faults it holds for, or it may miss
                    # a replacement that comes between this answer and its first look.
                    return {**fault, "since": self.replaced}
        return {}

    def repository(self, name: str) -> Repository | None:
        root = self.root / name
        if name.count("/") != 1 or ".." in name or not root.is_dir():
            return None
        return Repository(name, root)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/-/faults":
            self.refuse(404, "EntryNotFound")
            return
        with self.state.lock:
            self.state.faults = json.loads(body)
            self.state.replaced += 1
        self.send_json([])

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests can be asked for."""

    # ---- routes

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/-/requests":
            with self.state.lock:
                known = list(self.state.requests)
            self.send_json(known)
            return
        self.note: dict[str, Any] = {
            "method": self.command,
            "path": path,
            "range": self.headers.get("Range", ""),
            "token": self.headers.get("Authorization", "").removeprefix("Bearer "),
            "status": 0,
        }
        with self.state.lock:
            self.state.requests.append(self.note)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.describe(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self.tree(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.cdn(match[1], match[2])
        else:
            self.refuse(404, "EntryNotFound")

    def describe(self, name: str, revision: str) -> None:
        repository = self.opened(name, revision, listing=True)
        if repository is None:
            return
        blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        self.send_json(
            {
                "id": name,
                "modelId": name,
                "sha": repository.commit,
                "private": False,
                "gated": self.matches(name, "gated"),
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [
                    e.sibling() if blobs else {"rfilename": e.path}
                    for e in repository.entries.values()
                ],
            }
        )

    def tree(self, name: str, revision: str) -> None:
        repository = self.opened(name, revision, listing=True)
        if repository is not None:
            self.send_json([entry.tree_row() for entry in repository.entries.values()])

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.opened(name, revision, listing=False)
        if repository is None:
            return
        commit = {"X-Repo-Commit": repository.commit}
        entry = repository.entries.get(path)
        if entry is None:
            self.refuse(404, "EntryNotFound", commit)
            return
        if not entry.large:
            self.send_content(name, entry, {**commit, "ETag": f'"{entry.etag}"'})
            return
        linked = {
            **commit,
            "X-Linked-Etag": f'"{entry.etag}"',
            "X-Linked-Size": str(entry.size),
        }
        if self.state.options.cdn:
            where = f"http://localhost:{self.state.port}/cdn/{name}/{entry.path}"
            self.begin(302, {**linked, "Location": where, "Content-Length": "0"})
        else:
            self.send_content(name, entry, {**linked, "ETag": f'"{entry.etag}"'})

    def cdn(self, name: str, path: str) -> None:
        repository = self.state.repository(name)
        entry = repository.entries.get(path) if repository else None
        if entry is None:
            self.refuse(404, "EntryNotFound")
        elif self.note["token"]:
            self.refuse(400, "AuthorizationMustNotComeHere")
        else:
            self.send_content(name, entry, {"ETag": '"of-the-cdn"'})

    # ---- who may what

    def matches(self, name: str, switch: str) -> bool:
        globs: list[str] = getattr(self.state.options, switch)
        return any(fnmatch.fnmatch(name, glob) for glob in globs)

    def opened(self, name: str, revision: str, *, listing: bool) -> Repository | None:
        """The repository, or an answer that says why not."""
        fault = self.state.fault(name, "listing") if listing else {}
        if self.fail(fault):
            return None
        if fault.get("kind") == "stall":
            self.gone_within(None)
            self.close_connection = True
            return None
        repository = self.state.repository(name)
        token = self.state.options.token
        known = bool(token) and self.note["token"] == token
        if repository is None or (self.matches(name, "private") and not known):
            # As the real hub: without a token it does not say whether the repository exists.
            self.refuse(404 if known else 401, "RepoNotFound")
            return None
        if not listing and self.matches(name, "gated") and not known:
            self.refuse(401 if not self.note["token"] else 403, "GatedRepo")
            return None
        if revision not in ("main", repository.commit):
            self.refuse(404, "RevisionNotFound")
            return None
        return repository

    # ---- answers

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.note["status"] = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def send_json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.note = getattr(self, "note", {})
        self.begin(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        data = json.dumps({"error": code}).encode()
        self.note = getattr(self, "note", {})
        self.begin(
            status,
            {
                **(headers or {}),
                "X-Error-Code": code,
                "X-Error-Message": code,
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
            },
        )
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, fault: dict[str, Any]) -> bool:
        if fault.get("kind") != "status":
            return False
        self.refuse(fault["status"], fault.get("code", "Fault"))
        return True

    def send_content(self, name: str, entry: Entry, headers: dict[str, str]) -> None:
        if self.command == "HEAD":
            self.begin(200, {**headers, "Content-Length": str(entry.size)})
            return
        fault = self.state.fault(f"{name}/{entry.path}", "content")
        if self.fail(fault):
            return
        kind = fault.get("kind")
        start = 0
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span and kind != "whole":
            start = int(span[1])
            if kind == "expired" or start >= entry.size:
                self.refuse(416, "RangeNotSatisfiable")
                return
        data = entry.file.read_bytes()[start:]
        if kind == "wrong":
            data = bytes(byte ^ 1 for byte in data)
        headers = {**headers, "Content-Length": str(len(data)), "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{entry.size - 1}/{entry.size}"
        self.begin(206 if start else 200, headers)
        self.send_bytes(data, fault)

    def send_bytes(self, data: bytes, fault: dict[str, Any]) -> None:
        kind = fault.get("kind")
        if kind == "hold":
            self.wfile.write(data[: fault["after"]])
            self.wfile.flush()
            data = data[fault["after"] :]
            while self.state.replaced == fault["since"]:
                if self.gone_within(20):
                    self.note["left"] = True
                    self.close_connection = True
                    return
        if kind in ("cut", "stall"):
            self.wfile.write(data[: fault["after"]])
            self.wfile.flush()
            self.close_connection = True
            if kind == "stall":
                self.gone_within(None)
                self.note["left"] = True
            return
        speed = fault.get("bytes_per_second") if kind == "slow" else None
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            if speed:
                time.sleep(len(piece) / speed)
            try:
                self.wfile.write(piece)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
                return

    def gone_within(self, milliseconds: int | None) -> bool:
        """Whether the client hangs up meanwhile; for as long as it takes if no time is given."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(milliseconds))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # Tests ask for many connections at once.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ConnectionResetError)):
            super().handle_error(request, client_address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cdn", action="store_true")
    parser.add_argument("--token", default="")
    parser.add_argument("--gated", action="append", default=[])
    parser.add_argument("--private", action="append", default=[])
    parser.add_argument("--fault", action="append", default=[])
    options = parser.parse_args()
    Handler.state = State(options)
    server = Server(("127.0.0.1", options.port), Handler)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Handler.state.port = server.server_address[1]
    print(f"http://127.0.0.1:{Handler.state.port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
