"""A package index on the loopback that counts what is fetched and can stop in the middle."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

PATIENCE = 30.0


class Index:
    """What the index has and has seen.

    Clear `flow` to have every download stop after its first bytes; `reached` is set then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.downloads: list[str] = []
        self.flow = threading.Event()
        self.flow.set()
        self.reached = threading.Event()

    def hold(self) -> None:
        self.flow.clear()
        self.reached.clear()


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """Serve the wheels in a folder."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(self.path.rstrip("/").rpartition("/")[2])
            file = index.folder / name
            if file.suffix == ".whl" and file.is_file():
                self._send_file(file)
            else:
                self._send_page(name)

        def _send_page(self, project: str) -> None:
            links = []
            for wheel in sorted(index.folder.glob(f"{project}-*.whl")):
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                links.append(f'<a href="/files/{wheel.name}#sha256={digest}">{wheel.name}</a>')
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
            self.send_response(200 if links else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def _send_file(self, file: Path) -> None:
            data = file.read_bytes()
            index.downloads.append(file.name)
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data[:64])
                self.wfile.flush()
                index.reached.set()
                index.flow.wait(PATIENCE)
                self.wfile.write(data[64:])
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        try:
            yield index
        finally:
            index.flow.set()
            server.shutdown()
            thread.join()
