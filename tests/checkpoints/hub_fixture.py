"""Runs the fake hub as a process of its own, and writes repositories for it."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

PROGRAM = Path(__file__).resolve().parents[1] / "programs" / "fake_hub.py"
STARTS_WITHIN = 20.0


@contextmanager
def running_hub(root: Path, *args: str) -> Iterator[str]:
    """A hub that serves the folder; yields its URL. `args` are further switches of the program."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "--root", str(root), *args],
        stdout=subprocess.PIPE,
        text=True,
    )
    late = threading.Timer(STARTS_WITHIN, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        late.cancel()
        assert url, "the fake hub did not start"
        yield url
    finally:
        late.cancel()
        process.kill()
        process.communicate()


def write_repository(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Put files into `owner/repo` of the folder a hub serves."""
    for path, content in files.items():
        target = root / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def gguf(size: int, seed: int = 0, *, context: int = 0) -> bytes:
    """Bytes that begin like a GGUF file, with a context length if one is given."""
    pairs = b""
    if context:
        pairs = _string("general.architecture") + struct.pack("<I", 8) + _string("llama")
        pairs += _string("llama.context_length") + struct.pack("<II", 4, context)
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 2 if context else 0) + pairs
    return header + random.Random(seed).randbytes(max(0, size - len(header)))


def requests_of(url: str) -> list[dict[str, Any]]:
    """What the hub was asked so far."""
    answer: list[dict[str, Any]] = requests.get(f"{url}/-/requests", timeout=10).json()
    return answer


def downloads_of(url: str) -> list[dict[str, Any]]:
    """Those of them that were for contents."""
    return [
        asked
        for asked in requests_of(url)
        if asked["method"] == "GET"
        and asked["status"] in (200, 206)
        and ("/resolve/" in asked["path"] or asked["path"].startswith("/cdn/"))
    ]


def set_faults(url: str, *faults: Mapping[str, object]) -> None:
    """Replace what goes wrong."""
    requests.post(f"{url}/-/faults", data=json.dumps(faults), timeout=10).raise_for_status()


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
