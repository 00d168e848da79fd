"""Real archives with a real program in them, and backends that are made of them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lemonade.catalog import BackendSpec

REPOSITORY = "somebody/tiny"
PROGRAM = "#!/bin/sh\necho tiny {version} $TINY_HOME $*\n"
BROKEN = (
    "#!/bin/sh\necho 'tiny: error while loading shared libraries: libx.so.1: no' >&2\nexit 127\n"
)


def contents(
    version: str = "1.0", program: str = PROGRAM, bulk: int = 300_000
) -> dict[str, bytes]:
    """A program, a library, a folder with something, and some bytes that do not shrink."""
    return {
        "bin/tiny-server": program.replace("{version}", version).encode(),
        "lib/libtiny.so": b"\x7fELF" + random.Random(1).randbytes(bulk),
        "share/notes.txt": b"notes\n" * 100,
    }


def build_archive(path: Path, files: Mapping[str, bytes], *, top: str = "") -> Path:
    """An archive of the kind its name says; programs have the mode of programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{top}/" if top else ""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                entry = zipfile.ZipInfo(prefix + name, (2026, 1, 1, 0, 0, 0))
                entry.external_attr = mode_of(name) << 16
                archive.writestr(entry, data)
        return path
    with tarfile.open(path, f"w:{path.suffix.removeprefix('.').replace('tgz', 'gz')}") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size, info.mode = len(data), mode_of(name)
            tar.addfile(info, io.BytesIO(data))
    return path


def mode_of(name: str) -> int:
    return 0o755 if name.startswith("bin/") else 0o644


def publish(
    folder: Path,
    version: str = "1.0",
    program: str = PROGRAM,
    *,
    ending: str = ".tar.gz",
    bulk: int = 300_000,
) -> Path:
    """Put a release of the tiny engine onto the host."""
    release = folder / REPOSITORY / version
    return build_archive(
        release / f"tiny-{version}-linux{ending}",
        contents(version, program, bulk),
        top=f"tiny-{version}",
    )


def split(archive: Path, count: int) -> list[Path]:
    """Cut an archive into parts, as publishers of large ones do; it is gone itself."""
    name = archive.name.removesuffix(".tar.gz")
    data = archive.read_bytes()
    size = -(-len(data) // count)
    parts = []
    for number in range(count):
        part = archive.with_name(f"{name}.part{number + 1:02}-of-{count:02}.tar.gz")
        part.write_bytes(data[number * size : (number + 1) * size])
        parts.append(part)
    archive.with_name(f"{name}.partcount").write_text(f"{count}\n")
    archive.unlink()
    return parts


def backend_of(
    version: str = "1.0",
    *,
    asset: str = "tiny-{version}-linux.tar.gz",
    sha256: Mapping[str, str] | None = None,
    parts: bool = False,
) -> BackendSpec:
    """A backend `tiny:engine` that is a file of a release."""
    return BackendSpec.model_validate(
        {
            "schema": 1,
            "id": "tiny:engine",
            "title": "Tiny engine",
            "preference": 10,
            "devices": ["cpu"],
            "pin": {
                "source": "github",
                "version": version,
                "repository": REPOSITORY,
                "sha256": dict(sha256 or {}),
                "executable": "tiny-server",
                "assets": [{"name": asset, "parts": parts}],
            },
            "runs_on": [{"os": ["linux"]}],
            "bundle": {"argv": ["{executable}"], "smoke": ["--version"]},
            "environment": {"TINY_HOME": "{folder}"},
        }
    )
