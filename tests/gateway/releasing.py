"""A fake engine that is a file of a release, for tests that install it over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.installer.releases import build_archive
from tests.programs.release_server import Releases
from tests.programs.release_server import serving as hosting
from tests.serving import FAKE_ENGINE, Serving, fake_catalog, fake_model, serving

BACKEND = """
schema = 1
id = "fake:release"
title = "A fake engine out of a release"
preference = 1
devices = ["cpu"]

[pin]
source = "github"
repository = "somebody/fake"
version = "v1"
executable = "fake-server"
release_url = "https://github.com/somebody/fake/releases"

[[pin.assets]]
os = ["linux"]
name = "fake-{version}-{os}.tar.xz"

[[pin.assets]]
os = ["macos"]
name = "fake-{version}-mac.tar.gz"

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{executable}"]

[environment]
FAKE_HOME = "{folder}"
"""
ARCHIVE = "fake-v1-linux.tar.xz"
ONE = {"recipe": "fake", "backend": "release"}


@contextmanager
def releasing(home: Path, prelude: str = "") -> Iterator[Releases]:
    """A host with the fake engine: a real program with its interpreter in its first line.

    `prelude` is Python that the program runs first.
    """
    program = FAKE_ENGINE.read_text()
    if prelude:
        program = program.replace("import argparse\n", f"{prelude}\nimport argparse\n", 1)
    build_archive(
        home / "releases" / "somebody" / "fake" / "v1" / ARCHIVE,
        {"bin/fake-server": f"#!{sys.executable}\n{program}".encode(), "LICENSE": b"free"},
        top="fake-v1",
    )
    with hosting(home / "releases") as host:
        yield host


def catalog_of(home: Path) -> Path:
    """A catalogue with that engine and no other."""
    catalog = fake_catalog(home)
    (catalog / "backends" / "fake-program.toml").unlink()
    (catalog / "backends" / "fake-release.toml").write_text(BACKEND)
    return catalog


@contextmanager
def installing(home: Path, releases: Releases) -> Iterator[Serving]:
    """A server that knows that engine and no other, and one model for it."""
    catalog = catalog_of(home)
    fake_model(catalog, "one")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog), **releases.environ}) as one:
        yield one


def state(server: Serving) -> str:
    """What the server says of that engine."""
    recipes = server.get("system-info").json()["recipes"]
    found: str = recipes["fake"]["backends"]["release"]["state"]
    return found


def left_in(home: Path) -> list[str]:
    """What lies in the backend's folder, the lock aside."""
    folder = home / "cache" / "bin" / "fake" / "release"
    return sorted(p.name for p in folder.glob("*") if p.name not in (".lock", "active.json"))
