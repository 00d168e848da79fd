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

LATE = """
import fcntl, sys
from pathlib import Path
from lemonade.storage import FileLock

def tell(event, _):
    if event == "fcntl.flock":
        print("waits", flush=True)

sys.addaudithook(tell)
print(FileLock(Path(sys.argv[1]), shared=True, existing=True).acquire(blocking=True), flush=True)
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


def test_those_who_share_exclude_only_those_who_do_not(tmp_path):
    path = tmp_path / "a.lock"
    one, two = FileLock(path, shared=True), FileLock(path, shared=True)
    alone = FileLock(path)
    assert one.acquire()
    assert two.acquire()
    assert not alone.acquire()
    one.release()
    assert not alone.acquire()
    two.release()
    assert alone.acquire()
    assert not one.acquire()
    alone.release()


def test_a_file_that_is_there_for_another_reason_is_not_made(tmp_path):
    path = tmp_path / "receipt.json"
    assert not FileLock(path, existing=True).acquire()
    assert not path.exists()
    path.write_text("{}")
    path.chmod(0o444)
    with FileLock(path, shared=True, existing=True) as shared:
        assert shared.held
    assert path.read_text() == "{}"


def test_who_comes_too_late_does_not_get_it(tmp_path):
    path = tmp_path / "receipt.json"
    path.write_text("old")
    late = FileLock(path, shared=True, existing=True)
    alone = FileLock(path, existing=True)
    assert alone.acquire()
    with subprocess.Popen(
        [sys.executable, "-c", LATE, path], cwd=ROOT, stdout=subprocess.PIPE
    ) as waiter:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == b"waits\n"
        path.rename(tmp_path / "removed")
        path.write_text("new")
        alone.release()
        assert waiter.stdout.readline() == b"False\n"
    assert late.acquire(), "the new file is another one"
    late.release()
