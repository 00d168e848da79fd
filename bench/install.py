"""What installing costs, against `curl | tar` of the same archive from the same server.

    python -m bench.install [--rounds N] [--megabytes M] [--files N] [--kind tar.gz|tar.xz]

An archive is made of files that shrink about as engines do, and served over the loopback by a
program of its own that sends files and no more. Then, in turn: `curl -s URL | tar xz`, and the
installer as `lemonade backends install` uses it, with look-up, resume, verification, flush to the
disk, a digest of every file, the check that the program starts, and activation. Ratios are taken
within a round. Both write to the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.hardware import Cpu, Machine
from lemonade.installer import Bundles, Installer
from lemonade.planning import plan_install, select

PROGRAM = b"#!/bin/sh\necho bench 1.0\n"
SERVER = """
import hashlib, json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
FILE, DIGEST = sys.argv[1], sys.argv[2]
SIZE, NAME = os.path.getsize(FILE), os.path.basename(FILE)
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/api/"):
            asset = {"name": NAME, "size": SIZE, "digest": "sha256:" + DIGEST}
            body = json.dumps({"tag_name": "v1", "assets": [asset]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        self.wfile.flush()
        with open(FILE, "rb") as file:
            done = 0
            while done < SIZE:
                done += os.sendfile(self.connection.fileno(), file.fileno(), done, 1 << 22)
    def log_message(self, *_):
        pass
class Server(ThreadingHTTPServer):
    daemon_threads = True
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def build(path: Path, megabytes: int, count: int) -> str:
    """The archive; returns its digest. Half of every file is noise, the rest repeats."""
    import hashlib

    chance = random.Random(1)
    noise = chance.randbytes(1 << 22)
    words = (b"symbol_%d\0" % n for n in range(100_000))
    text = b"".join(words)[: 1 << 20]
    sizes = [int(chance.paretovariate(1.2) * 4000) for _ in range(count)]
    scale = megabytes * 1e6 / sum(sizes)
    mode = path.name.rpartition(".")[2]
    with tarfile.open(path, f"w:{mode}", **({"compresslevel": 6} if mode == "gz" else {})) as tar:
        add(tar, "top/bin/bench-server", PROGRAM, 0o755)
        for number, size in enumerate(sizes):
            length, parts, have = max(1, int(size * scale)), [], 0
            while have < length:
                start = chance.randrange(len(noise) - 65536)
                piece = noise[start : start + 24576] + text[start % 900_000 :][:40960]
                parts.append(piece)
                have += len(piece)
            add(tar, f"top/lib/{number % 97}/file{number}.so", b"".join(parts)[:length], 0o644)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """One file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, BytesIO(data))


def plain(url: str, into: Path, kind: str) -> float:
    """`curl | tar`."""
    into.mkdir()
    flag = "z" if kind.endswith("gz") else "J"
    began = time.monotonic()
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"curl -s {url} | tar x{flag} -C {into}"], check=True
    )
    return time.monotonic() - began


def spec_of(name: str) -> BackendSpec:
    """A backend that is that one file."""
    return BackendSpec.model_validate(
        {
            "schema": 1, "id": "bench:engine", "title": "Bench", "preference": 1,
            "devices": ["cpu"], "runs_on": [{}],
            "pin": {
                "source": "github", "version": "v1", "repository": "some/bench",
                "executable": "bench-server", "assets": [{"name": name}],
            },
            "bundle": {"argv": ["{executable}"], "smoke": ["--version"]},
        }
    )  # fmt: skip


async def ours(url: str, root: Path, name: str) -> float:
    """The installer."""
    environ = {
        "LEMONADE_GITHUB_URL": url,
        "LEMONADE_GITHUB_API_URL": f"{url}/api",
        "PATH": os.environ["PATH"],
    }
    cpu = Cpu("", "x86_64", 1, 1, frozenset())
    machine = Machine(os="linux", os_version="", kernel="", cpu=cpu, memory_bytes=1 << 33)
    bundles = Bundles(root, environ)
    plan = plan_install(select(spec_of(name), machine), machine, (), root)
    began = time.monotonic()
    async with Installer(bundles, Bus(), environ) as installer:
        await installer.install(plan, lambda _: None)
    return time.monotonic() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser("bench.install")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=800)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--kind", choices=("tar.gz", "tar.xz"), default="tar.gz")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as text:
        folder = Path(text)
        archive = folder / f"bench-v1.{options.kind}"
        digest = build(archive, options.megabytes, options.files)
        print(f"{archive.name}: {archive.stat().st_size / 1e6:.0f} MB of {options.megabytes} MB")
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(archive), digest], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            rounds = [one_round(folder, url, archive.name) for _ in range(options.rounds)]
        finally:
            server.kill()
            server.wait()
    report(rounds, options.kind)


def one_round(folder: Path, url: str, name: str) -> dict[str, float]:
    """Both, one after the other."""
    found: dict[str, float] = {}
    for who in ("plain", "ours"):
        place = folder / who
        os.sync()
        before = [
            resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        if who == "plain":
            found[who] = plain(f"{url}/some/bench/releases/download/v1/{name}", place, name)
        else:
            found[who] = asyncio.run(ours(url, place, name))
        after = [
            resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        found[f"{who}_cpu"] = sum(
            b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime
            for a, b in zip(before, after, strict=True)
        )
        shutil.rmtree(place)
    found["ratio"] = found["ours"] / found["plain"]
    print(json.dumps({key: round(value, 2) for key, value in found.items()}), flush=True)
    return found


def report(rounds: list[dict[str, float]], kind: str) -> None:
    """The medians."""
    print(f"\n{kind}, {len(rounds)} rounds, Python {platform.python_version()}")
    for key in ("plain", "ours", "plain_cpu", "ours_cpu", "ratio"):
        values = [one[key] for one in rounds]
        print(f"{key}: {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")


if __name__ == "__main__":
    main()
