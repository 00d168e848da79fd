"""Several processes that change one document: nobody's change is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.storage import changing, read_json, write_json

PROJECT = Path(__file__).parents[3]
COUNT = """
import sys
from pathlib import Path
from lemonade.storage import changing, read_json, write_json
path = Path(sys.argv[1])
for _ in range(40):
    with changing(path):
        write_json(path, {"count": (read_json(path) or {"count": 0})["count"] + 1})
"""


@pytest.mark.slow
def test_no_change_is_lost_between_processes(tmp_path):
    path = tmp_path / "counted.json"
    started = [
        subprocess.Popen([sys.executable, "-c", COUNT, str(path)], cwd=PROJECT) for _ in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert read_json(path) == {"count": 120}


def test_a_linked_document_is_locked_where_it_is(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    with changing(link):
        write_json(link, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".real.json.lock",
        "link.json",
        "real.json",
    ]


def test_where_there_can_be_no_lock_nobody_waits(tmp_path):
    (tmp_path / "file").touch()
    with changing(tmp_path / "file" / "x.json"):
        pass
