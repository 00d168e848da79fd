"""Setting the project up: from any folder, and again after somebody interrupted it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import CHECKOUT
from tools.setup import has_pip

STAND_IN = """
import sys
from pathlib import Path
Path(sys.argv[1]).mkdir()
print(*sys.argv[1:], sep="\\n")
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_folder_with_blanks_in_its_name(tmp_path):
    folder = tmp_path / "a folder of mine"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(CHECKOUT / "Makefile", folder)
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    (folder / "tools" / "setup.py").write_text(STAND_IN)
    done = subprocess.run(
        ["make", "-s", "setup", f"PYTHON={sys.executable}"],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [".venv", str(folder / "build" / "wheels")]


def test_half_an_environment_is_none(tmp_path):
    assert not has_pip(tmp_path / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    assert not has_pip(tmp_path / "bin" / "python")
    assert has_pip(Path(sys.executable))
