"""The servers that are compared: started, asked for their CPU time and memory, and ended."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from bench.programs import program

ROOT = Path(__file__).resolve().parent.parent

NGINX_CONFIG = """\
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log {work}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  client_max_body_size 128m;
  keepalive_requests 1000000000;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    tcp_nodelay on;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Server:
    """Something that answers, and whose costs can be read if its process is known."""

    name: str
    host: str
    port: int
    path: str = "/v1/chat/completions"
    model: str = "fake"
    pid: int | None = None
    children_count: bool = True
    helpers: str = ""

    def pids(self) -> list[int]:
        """The process, and its descendants unless they are engines."""
        if self.pid is None:
            return []
        if not self.children_count:
            return [self.pid, *self._helpers()]
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += [int(child) for child in task.read_text().split()]
        return found

    def _helpers(self) -> list[int]:
        """Children that do a part of its work, known by a word in their command lines."""
        if not self.helpers:
            return []
        children = [
            int(child)
            for task in Path(f"/proc/{self.pid}/task").glob("*/children")
            for child in task.read_text().split()
        ]
        word = self.helpers.encode()
        return [pid for pid in children if word in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def cpu_seconds(self) -> float | None:
        """CPU time used so far by all its threads; nanoseconds are counted."""
        if self.pid is None:
            return None
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def resident_mib(self) -> float | None:
        """Resident memory of its processes."""
        if self.pid is None:
            return None
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], within: float = 30.0) -> None:
    """Return when somebody accepts connections there."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with status {process.returncode}.")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"{process.args!r} does not listen on port {port}.")


@contextmanager
def started(
    name: str, port: int, argv: list[str | Path], environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """A server as a child of ours, ended at the end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_for(port, process)
            yield Server(name, "127.0.0.1", port, pid=process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def engine() -> Iterator[Server]:
    """The fake engine. Measured itself it is the floor: `direct`."""
    port = free_port()
    with started("direct", port, [program("fakeengine"), "--port", str(port)]) as server:
        yield server


@contextmanager
def nginx(engine_port: int) -> Iterator[Server]:
    """One worker, nothing buffered, connections to the engine kept."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as work:
        config = Path(work) / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(work=work, engine=engine_port, port=port))
        argv: list[str | Path] = ["nginx", "-p", work, "-e", f"{work}/error.log", "-c", config]
        with started("nginx", port, argv) as server:
            yield server


@contextmanager
def ours(engine_port: int) -> Iterator[Server]:
    """The relay by itself."""
    port = free_port()
    argv: list[str | Path] = [sys.executable, "-m", "bench.relay_app"]
    argv += ["--port", str(port), "--engine", str(engine_port)]
    with started("relay", port, argv) as server:
        yield server


RECIPE = """\
schema = 1
id = "bench"
title = "Fake engine"
section = "bench"
modality = "Text generation"
modes = ["chat"]
files = "gguf"
[upstream]
ready = "/health"
[upstream.operations]
chat = "/v1/chat/completions"
[argv]
always = ["--port", "{port}"]
"""

BACKEND = """\
schema = 1
id = "bench:c"
title = "Fake engine in C"
preference = 1
devices = ["cpu"]
[pin]
source = "system"
executable = "PROGRAM"
[[runs_on]]
os = ["linux"]
[bundle]
argv = ["{executable}"]
"""


@contextmanager
def whole_server(workers: int = 0) -> Iterator[Server]:
    """The server as users run it, with the fake engine as its child: one recipe, one backend."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-lemonade-") as work:
        folder = Path(work)
        for name, text in (
            ("recipes/bench.toml", RECIPE),
            ("backends/bench-c.toml", BACKEND.replace("PROGRAM", str(program("fakeengine")))),
        ):
            (folder / name).parent.mkdir()
            (folder / name).write_text(text)
        (folder / "fake.gguf").write_bytes(b"GGUF" + bytes(64))
        model = {
            "checkpoint": str(folder / "fake.gguf"),
            "source": "local_path",
            "recipe": "bench",
            "labels": ["chat"],
            "size": 0.001,
        }
        (folder / "server_models.json").write_text(json.dumps({"fake": model}))
        environment = {
            **os.environ,
            "LEMONADE_CATALOG": work,
            "LEMONADE_CACHE_DIR": f"{work}/cache",
            "LEMONADE_CONFIG_DIR": f"{work}/config",
        }
        argv: list[str | Path] = [sys.executable, "-m", "lemonade", "serve", "--model", "fake"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        argv += ["--workers", str(workers)]
        name = f"workers {workers}" if workers else "lemonade"
        with started(name, port, argv, environment) as server:
            yield replace(server, children_count=False, helpers="lemonade.relay.worker")


def running(name: str, base_url: str, model: str, pid: int | None) -> Server:
    """A server that is there already."""
    parts = urlsplit(base_url)
    return Server(
        name=name,
        host="127.0.0.1" if parts.hostname in {None, "localhost"} else str(parts.hostname),
        port=parts.port or 80,
        path=f"{parts.path.rstrip('/')}/chat/completions",
        model=model,
        pid=pid,
    )


@contextmanager
def all_servers(others: list[Server], workers: int = 0) -> Iterator[list[Server]]:
    """The engine, nginx if there is one, our relay alone, the whole server, and others named."""
    with ExitStack() as stack:
        direct = stack.enter_context(engine())
        servers = [direct]
        if shutil.which("nginx"):
            servers.append(stack.enter_context(nginx(direct.port)))
        servers.append(stack.enter_context(ours(direct.port)))
        servers.append(stack.enter_context(whole_server()))
        if workers:
            servers.append(stack.enter_context(whole_server(workers)))
        yield servers + others
