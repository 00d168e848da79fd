"""A host of releases on the loopback: questions about releases, files, redirects, and faults.

    python release_server.py FOLDER [--port 8123]

`FOLDER/<owner>/<name>/<tag>/` are releases with their files. As the real one it has two faces: the
API under `/api`, and `/<owner>/<name>/releases/download/<tag>/<file>`, which redirects to
`/storage/...`. `--no-digests` and `--no-api` take something away.

Faults are per file name, each for so many requests of its content (-1: for ever), set with
`POST /faults` and a body `{"file": [["cut", 1], ["status:429", 2]]}`: `cut` closes the connection
half way, `stall` sends half and then nothing, `slow` waits for `POST /go` half way, `corrupt`
changes a byte, `status:N` answers that, `elsewhere` redirects to `http://example.invalid/`,
`nowhere` to what is no address, `no-range` ignores ranges. The list of releases is the file
`list`, which may also be `deep`, more than anybody can read. A question about a release is the
file `api`: `slow` and `status:N`. `GET /seen` lists what was asked: path, range, whether a token
came.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PATIENCE = 30.0


class Releases:
    """What the host has, what it was asked, and how it misbehaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.digests = True
        self.api = True
        self.wrong_size = 0
        self.prereleases: set[str] = set()
        self.drafts: set[str] = set()
        self.unchanged = 0
        self.seen: list[dict[str, Any]] = []
        self.faults: dict[str, list[list[Any]]] = {}
        self.go = threading.Event()
        self.reached = threading.Event()
        self._lock = threading.Lock()

    @property
    def environ(self) -> dict[str, str]:
        return {"LEMONADE_GITHUB_URL": self.url, "LEMONADE_GITHUB_API_URL": f"{self.url}/api"}

    def fault(self, name: str) -> str:
        """The fault for this request of a file."""
        with self._lock:
            for entry in self.faults.get(name, ()):
                if entry[1]:
                    entry[1] -= 1
                    return str(entry[0])
        return ""

    def fetched(self) -> list[str]:
        """Names of files whose content was asked for, in order."""
        return [one["path"].rpartition("/")[2] for one in self.seen if one["storage"]]

    def published(self, folder: Path) -> dict[str, Any]:
        assets = []
        for file in sorted(folder.iterdir()):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            assets.append(
                {
                    "name": file.name,
                    "size": self.wrong_size or file.stat().st_size,
                    "digest": f"sha256:{digest}" if self.digests else None,
                }
            )
        return {"tag_name": folder.name, "assets": assets}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    releases: Releases

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/faults":
            self.releases.faults = json.loads(body)
        if self.path == "/go":
            self.releases.go.set()
        self._send(200, b"{}")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        releases, parts = self.releases, path.strip("/").split("/")
        if path == "/seen":
            return self._send(200, json.dumps(releases.seen).encode())
        releases.seen.append(
            {
                "path": path,
                "method": self.command,
                "storage": parts[0] == "storage" and self.command == "GET",
                "range": self.headers.get("Range", ""),
                "token": self.headers.get("Authorization", ""),
            }
        )
        if parts[0] == "api" and len(parts) == 5:
            return self._send_releases(releases.folder.joinpath(*parts[2:4]))
        if parts[0] == "api" and len(parts) == 7:
            return self._send_release(releases.folder.joinpath(*parts[2:4], parts[6]))
        if parts[2:4] == ["releases", "download"] and len(parts) == 6:
            return self._redirect("/".join((*parts[:2], *parts[4:])), parts[-1])
        if parts[0] == "storage":
            return self._send_file(releases.folder.joinpath(*parts[1:]))
        return self._send(404, b"")

    def _send_release(self, folder: Path) -> None:
        if not self.releases.api:
            return self._send(404, b"{}")
        fault = self.releases.fault("api")
        if fault == "slow":
            self.releases.reached.set()
            self.releases.go.wait(PATIENCE)
        elif fault:
            return self._send(int(fault.removeprefix("status:")), b"{}")
        if not folder.is_dir():
            return self._send(404, b"{}")
        return self._send(200, json.dumps(self.releases.published(folder)).encode())

    def _send_releases(self, folder: Path) -> None:
        """The list of a publisher, the newest first; whoever knows it already is told so."""
        releases = self.releases
        fault = releases.fault("list")
        if fault == "deep":
            return self._send(200, b"[" * 100_000)
        if not releases.api or fault:
            return self._send(int(fault.removeprefix("status:") or 404), b"{}")
        found = [releases.published(one) for one in folder.iterdir()] if folder.is_dir() else []
        for one in found:
            one["prerelease"] = one["tag_name"] in releases.prereleases
            one["draft"] = one["tag_name"] in releases.drafts
        found.sort(key=lambda one: [int(n) for n in re.findall(r"\d+", one["tag_name"])])
        body = json.dumps(found[::-1]).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            releases.unchanged += 1
            return self._send(304, b"", ETag=etag)
        return self._send(200, body, ETag=etag)

    def _redirect(self, file: str, name: str) -> None:
        if not (self.releases.folder / file).is_file():
            return self._send(404, b"")
        where = f"{self.releases.url.replace('127.0.0.1', 'localhost')}/storage/{file}"
        fault = self.releases.faults.get(name, [["", 0]])[0][0]
        where = {"elsewhere": "http://example.invalid/file", "nowhere": "//[x/"}.get(fault, where)
        return self._send(302, b"", Location=where)

    def _send_file(self, file: Path) -> None:
        if not file.is_file():
            return self._send(404, b"")
        if self.command == "HEAD":
            return self._head(200, self.releases.wrong_size or file.stat().st_size, {})
        data = file.read_bytes()
        fault = self.releases.fault(file.name)
        if fault.startswith("status:"):
            return self._send(int(fault.removeprefix("status:")), b"", **{"Retry-After": "0"})
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if fault == "corrupt":
            data = bytes([data[0] ^ 1]) + data[1:]
        begin, status, headers = 0, 200, {"ETag": etag, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if wanted and fault != "no-range" and self.headers.get("If-Range", etag) == etag:
            begin, status = int(wanted), 206
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            if begin >= len(data):
                return self._send(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        return self._send_content(status, data[begin:], headers, fault)

    def _send_content(self, status: int, data: bytes, headers: dict[str, str], fault: str) -> None:
        half = len(data) // 2 if fault in ("cut", "stall", "slow") else len(data)
        self._head(status, len(data), headers)
        try:
            self.wfile.write(data[:half])
            self.wfile.flush()
            if fault in ("stall", "slow"):
                self.releases.reached.set()
                self.releases.go.wait(PATIENCE)
            if fault == "slow":
                self.wfile.write(data[half:])
            if fault in ("cut", "stall"):
                self.close_connection = True
        except OSError:
            self.close_connection = True

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(folder: Path, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Releases]:
    """Serve the releases in a folder."""
    releases = Releases(folder)
    handler = type("_Handler", (Handler,), {"releases": releases})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may leave
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        releases.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        try:
            yield releases
        finally:
            releases.go.set()
            server.shutdown()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser("release_server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-digests", action="store_true")
    parser.add_argument("--no-api", action="store_true")
    options = parser.parse_args()
    with serving(options.folder, options.port) as releases:
        releases.digests, releases.api = not options.no_digests, not options.no_api
        print(releases.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
