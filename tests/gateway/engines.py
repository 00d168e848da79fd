"""The fake engine as releases of a publisher, and backends that are made of them."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.installer.releases import build_archive
from tests.programs.release_server import Releases
from tests.serving import FAKE_ENGINE, fake_catalog, fake_model

_BACKEND = """
schema = 1
id = "fake:{variant}"
title = "A fake engine out of a release"
preference = {preference}
devices = ["cpu"]

[pin]
source = "github"
repository = "somebody/fake"
version = "{version}"
executable = "fake-server"
release_url = "https://github.com/somebody/fake/releases"

[[pin.assets]]
os = ["linux"]
name = "{asset}"
parts = {parts}

[[runs_on]]
os = ["{os}"]
{runs_on}

[bundle]
argv = ["{{executable}}"]
"""


def publish_engine(home: Path, version: str, *names: str, program: str = "") -> None:
    """Put a version on the host, as files of these names; a real program with its interpreter."""
    text = program or FAKE_ENGINE.read_text()
    for name in names or (f"fake-{version}-linux.tar.gz",):
        build_archive(
            home / "releases" / "somebody" / "fake" / version / name,
            {"bin/fake-server": f"#!{sys.executable}\n{text}".encode(), "LICENSE": b"free"},
            top=f"fake-{version}",
        )


def engine_catalog(home: Path) -> Path:
    """A catalogue with the recipe, one model, and no backend yet."""
    catalog = fake_catalog(home)
    (catalog / "backends" / "fake-program.toml").unlink()
    fake_model(catalog, "one")
    return catalog


def add_backend(
    catalog: Path,
    variant: str = "release",
    *,
    version: str = "v1",
    asset: str = "fake-{version}-linux.tar.gz",
    runs_on: str = "",
    os: str = "linux",
    parts: bool = False,
    preference: int = 1,
) -> None:
    """Declare `fake:<variant>`."""
    text = _BACKEND.format(
        variant=variant,
        preference=preference,
        version=version,
        asset=asset,
        parts=str(parts).lower(),
        os=os,
        runs_on=runs_on,
    )
    (catalog / "backends" / f"fake-{variant}.toml").write_text(text)


def env_of(catalog: Path, releases: Releases | None = None) -> dict[str, str]:
    """The variables of a server that knows the catalogue, and perhaps the host."""
    return {"LEMONADE_CATALOG": str(catalog), **(releases.environ if releases else {})}
