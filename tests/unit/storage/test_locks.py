"""A lock excludes other holders in this process and in others, and dies with its holder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.core.errors import BadConfigFile
from lemonade.storage import FileLock

ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import sys
from pathlib import Path
from lemonade.storage import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_in_one_process(tmp_path):
    one, two = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert one.acquire()
    assert one.acquire(), "who has it has it"
    assert not two.acquire()
    one.release()
    one.release()
    assert two.acquire()
    assert two.held
    two.release()


def test_it_ends_with_its_block(tmp_path):
    with FileLock(tmp_path / "deep" / "a.lock") as lock:
        assert lock.held
        assert not FileLock(lock.path).acquire()
    with FileLock(lock.path) as again:
        assert again.held


def test_the_file_stays(tmp_path):
    with FileLock(tmp_path / "a.lock"):
        pass
    assert (tmp_path / "a.lock").exists()


def test_a_place_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfigFile, match=r"file/a\.lock"):
        FileLock(tmp_path / "file" / "a.lock").acquire()


def test_it_dies_with_its_holder(tmp_path):
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not FileLock(path).acquire()
        holder.send_signal(signal.SIGKILL)
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()
