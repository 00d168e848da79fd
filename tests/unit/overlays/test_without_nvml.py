"""NVIDIA's library cannot be loaded where a backend says so, though it is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.planning.examples import CHECKOUT, backend

NAME = "libnvidia-ml.so.1"
LOAD = f"import ctypes; ctypes.CDLL({NAME!r})"


@pytest.mark.skipif(sys.platform != "linux", reason="the loader of Linux")
def test_the_library_is_there_and_cannot_be_loaded(tmp_path: Path) -> None:
    """Any library will do for NVIDIA's."""
    with Path("/proc/self/maps").open() as maps:
        libraries = {line.split()[-1] for line in maps if ".so" in line}
    shutil.copy(next(one for one in sorted(libraries) if "/libc.so" in one), tmp_path / NAME)
    overlay = CHECKOUT / "backends" / "vllm-rocm.overlay"
    hidden = backend("vllm-rocm").environment["LD_LIBRARY_PATH"].replace("{overlay}", str(overlay))

    def load(path: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LOAD],
            env={**os.environ, "LD_LIBRARY_PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    assert load(str(tmp_path)).returncode == 0
    refused = load(f"{hidden}:{tmp_path}")
    assert refused.returncode == 1
    assert "OSError" in refused.stderr
