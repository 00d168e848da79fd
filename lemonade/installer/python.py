"""Which Python a private environment is made of, and what is laid into it beside its packages.

Looks at PATH and writes small files; starts nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lemonade.catalog import normal_name
from lemonade.core.errors import SetupFailed

_INSTALLER: Final = "lemonade\n"
_VERSION: Final = re.compile(r"^version\s*=\s*(\S+)", re.MULTILINE)


def find_python(versions: Sequence[str], environ: Mapping[str, str]) -> str:
    """The interpreter for an environment: ours if it is one of these, else one on PATH.

    Raises:
        SetupFailed: none of them is on this machine.
    """
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not versions or ours in versions:
        return sys.executable
    for version in versions:
        if found := shutil.which(f"python{version}", path=environ.get("PATH", os.defpath)):
            return found
    wanted = " or ".join(versions)
    raise SetupFailed(
        f"It is made for Python {wanted}; the server runs with {ours}, and there is no other on "
        "PATH.",
        remedy=f"Install Python {versions[0]} so that `python{versions[0]}` is on PATH, and try "
        "again.",
        facts={"wanted": list(versions), "ours": ours},
    )


def finish_environment(venv: Path, provides: Mapping[str, str]) -> str:
    """Say that these distributions are there, by name and version; returns Python's version.

    Only their metadata is written, in the form installers write it, so that
    `importlib.metadata.version(name)` answers. Blocks.

    Raises:
        SetupFailed: the environment has another form than Python's own.
    """
    site = next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)
    version = _VERSION.search((venv / "pyvenv.cfg").read_text(encoding="utf-8"))
    if site is None or version is None:
        raise SetupFailed("The Python environment has no folder of packages.")
    for name, provided in provides.items():
        folder = site / f"{normal_name(name).replace('-', '_')}-{provided}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {provided}\n"
        (folder / "METADATA").write_text(metadata, encoding="utf-8")
        (folder / "INSTALLER").write_text(_INSTALLER, encoding="utf-8")
        files = ("METADATA", "INSTALLER", "RECORD")
        record = "".join(f"{folder.name}/{file},,\n" for file in files)
        (folder / "RECORD").write_text(record, encoding="utf-8")
    return version[1]


def wheels_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and version of every wheel in a folder."""
    for path in folder.glob("*.whl"):
        name, _, rest = path.name.partition("-")
        yield normal_name(name), rest.partition("-")[0]
