"""Tiny real wheels, and backends that are made of them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lemonade.catalog import BackendSpec

METADATA = "Metadata-Version: 2.1\nName: tinyengine\nVersion: {}\n"
GOOD = "import sys\nprint('tinyengine', sys.argv[1])\n"
BROKEN = "import sys\nprint('a library is missing')\nsys.exit(3)\n"


@dataclass(frozen=True)
class Wheel:
    """One wheel file."""

    path: Path
    version: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def build_wheel(
    folder: Path, version: str = "1.0", program: str = GOOD, *, extra_bytes: int = 0
) -> Wheel:
    """A wheel of the project `tinyengine`, whose module runs `program`."""
    info = f"tinyengine-{version}.dist-info"
    files: dict[str, bytes] = {
        "tinyengine.py": program.encode(),
        f"{info}/METADATA": METADATA.format(version).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if extra_bytes:
        files["tinyengine_data.bin"] = bytes(extra_bytes)
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tinyengine-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    return Wheel(path, version)


def backend_of(wheel: Wheel, *, digests: Mapping[str, str] | None = None) -> BackendSpec:
    """A backend `tiny:engine` that installs the wheel."""
    return BackendSpec.model_validate(
        {
            "schema": 1,
            "id": "tiny:engine",
            "title": "Tiny engine",
            "preference": 10,
            "devices": ["cpu"],
            "pin": {
                "source": "pypi",
                "version": wheel.version,
                "packages": [f"tinyengine=={wheel.version}"],
                "sha256": dict(digests or {wheel.path.name: wheel.sha256}),
                "executable": "tinyengine",
            },
            "runs_on": [{"os": ["linux"]}],
            "bundle": {"argv": ["{python}", "-I", "-m", "tinyengine"], "smoke": ["--version"]},
        }
    )


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
