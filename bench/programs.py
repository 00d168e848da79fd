"""The two C programs of the benchmark, compiled when they are needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-O2", "-Wall", "-Wextra")


def program(name: str) -> Path:
    """`fakeengine` or `loadgen`, compiled from the source beside this file if that is newer."""
    source, target = HERE / f"{name}.c", HERE / "bin" / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise SystemExit("bench needs a C compiler: install gcc.")
        target.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, *FLAGS, "-o", target, source], check=True)
    return target
