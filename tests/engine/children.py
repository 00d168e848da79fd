"""Children of the embedded engine, started and ended by tests."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from lemonade.catalog import shipped

PATIENCE = 30.0
_SERVES = re.compile(r"serving on (http://\S+)(?: with .*)?$")


@dataclass
class Child:
    """A child that serves."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE, **options)

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=PATIENCE, **options)


def model(name: str) -> str:
    """The path of a model that ships with the package."""
    return str(shipped() / "models" / name)


def start(
    command: Sequence[str], *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A child with only its errors to be read."""
    return subprocess.Popen(
        [*command, *arguments],
        env=dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


@contextmanager
def running(
    command: Sequence[str], name: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """A child that serves one of the shipped models on a port of its choice."""
    fixed = ("-m", model(name), "--port", "0", "-t", "1")
    if name.endswith(".gguf"):
        fixed = (*fixed, "--fit", "off", "--no-webui")
    process = start(command, *fixed, *arguments, env=env)
    try:
        yield Child(process, _address(process))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def outcome(command: Sequence[str], *arguments: str) -> tuple[int, str, str]:
    """Run a child that is expected to end by itself: status, output, errors."""
    done = subprocess.run(
        [*command, *arguments],
        env={},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        # llama.cpp logs from a thread of its own, so something may stand before it on the line.
        if match := _SERVES.search(line.rstrip()):
            return match[1]
    raise AssertionError("the child ended:\n" + "".join(seen))
