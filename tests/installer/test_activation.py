"""What a power failure would leave: the files are on the disk before the receipt says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lemonade.installer.activation import activate
from lemonade.installer.durable import write_each, write_out
from lemonade.installer.receipts import Receipt, now, read_receipt

RECEIPT = Receipt("tiny:engine", "1.0", "", (), now())
_watched: list[list[str]] = []


def _watch(event: str, args: tuple[object, ...]) -> None:
    """What the interpreter does with the disk, while somebody asks; a hook cannot be removed."""
    if _watched and event in ("open", "os.rename", "ctypes.dlsym"):
        _watched[-1].append(f"{event} {args[1] if event == 'ctypes.dlsym' else args[0]}")


sys.addaudithook(_watch)


@contextmanager
def watching() -> Iterator[list[str]]:
    _watched.append([])
    try:
        yield _watched[-1]
    finally:
        _watched.pop()


@pytest.mark.parametrize("again", [False, True])
def test_the_disk_has_the_files_before_the_receipt(tmp_path: Path, *, again: bool) -> None:
    target = tmp_path / "1.0"
    if again:
        target.mkdir()
        RECEIPT.write(target)
    staging = tmp_path / ".staging-1.0-1"
    (staging / "tree").mkdir(parents=True)
    (staging / "tree" / "program").write_bytes(b"x" * 100)
    with watching() as seen:
        activate(RECEIPT, staging, target)
    first = seen.index(next(line for line in seen if "receipt.json" in line))
    swap, rename = "ctypes.dlsym renameat2", f"os.rename {staging}"
    written = [number for number, line in enumerate(seen) if line == "ctypes.dlsym syncfs"]
    assert written
    assert max(written) < first
    moved = next(number for number, line in enumerate(seen) if line in (swap, rename))
    assert f"open {tmp_path}" in seen[moved:], "the new name is written as well"
    assert read_receipt(target) == RECEIPT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.0"]


def test_without_help_every_file_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.so").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "link").symlink_to("nowhere")
    with watching() as seen:
        write_each(tmp_path)
    wanted = [tmp_path, tmp_path / "lib", tmp_path / "lib" / "a.so", tmp_path / "b"]
    assert sorted(seen) == sorted(f"open {path}" for path in wanted)


def test_what_is_not_there_cannot_be_written_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_out(tmp_path / "missing")
