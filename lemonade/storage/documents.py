"""JSON documents that are read whole and replaced whole.

A reader sees the old document or the new one, never half of one, whatever is killed in between. A
document that cannot be read as a JSON object is put aside, not lost. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lemonade.core.errors import BadConfigFile, OutOfDisk
from lemonade.core.inference import JsonObject
from lemonade.storage.locks import FileLock

log = logging.getLogger(__name__)

_ENDINGS: Final = ("", *(f"-{number}" for number in range(2, 10)))
"""Of the names of documents that were put aside."""

_LEFTOVER_AFTER: Final = 600.0
"""Seconds after which a temporary file of a writer is taken for one that was killed."""


def read_json(path: Path) -> JsonObject | None:
    """The object in the file, or `None` if there is no file.

    A file that holds no JSON object is renamed to `<name>.corrupted`, a warning says so, and the
    answer is `None`.

    Raises:
        BadConfigFile: the file is there and cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadConfigFile(
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Check its owner and permissions.",
            facts={"path": str(path)},
        ) from error
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        _put_aside(path, f"it is not JSON ({error})")
        return None
    if not isinstance(value, dict):
        _put_aside(path, "it does not hold a JSON object")
        return None
    return value


def write_json(path: Path, value: JsonObject, *, mode: int = 0o600) -> None:
    """Replace the document, or create it and its directory.

    The new bytes are on the disk before the name points at them. A link is followed, so that a
    document kept elsewhere stays there.

    Raises:
        OutOfDisk: there is no space; the old document is untouched.
        BadConfigFile: it cannot be written for another reason; likewise.
    """
    target = Path(os.path.realpath(path))
    data = _encode(value)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(target)
        try:
            _write_through(temporary, data, mode)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _settle(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk(
                f"There is no space left to write {path}.",
                remedy="Free some space and try again; what was there before still is.",
                facts={"path": str(path)},
            ) from error
        raise BadConfigFile(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="Check the owner and permissions of its directory.",
            facts={"path": str(path)},
        ) from error


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Be the only one who reads the document in order to write it, of all processes. Blocks.

    Otherwise what another server wrote between our reading and our writing would be lost. Where
    no lock can be had, as in a directory that is read-only, there is none: then nothing can be
    written either, and `write_json` finds the words for it.
    """
    target = Path(os.path.realpath(path))
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with contextlib.suppress(BadConfigFile, OSError):
        lock.acquire(blocking=True)
    try:
        yield
    finally:
        lock.release()


def _encode(value: JsonObject) -> bytes:
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only say in escapes
        return (json.dumps(value, indent=2) + "\n").encode()


def _write_through(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _settle(directory: Path) -> None:
    """Ask for the directory itself to be written; some file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what writers of this document left when they were killed."""
    oldest = time.time() - _LEFTOVER_AFTER
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if leftover.stat().st_mtime < oldest:
                leftover.unlink()


def _put_aside(path: Path, why: str) -> None:
    names = (f"{path.name}.corrupted{end}" for end in _ENDINGS)
    # Not over what was put aside before: that may be the one somebody wants back.
    aside = next((p for p in map(path.with_name, names) if not p.exists()), None)
    aside = aside or path.with_name(f"{path.name}.corrupted{_ENDINGS[-1]}")
    try:
        path.replace(aside)
    except OSError as error:
        raise BadConfigFile(
            f"{path} cannot be used, {why}, and it cannot be renamed: {error.strerror or error}.",
            remedy="Repair or remove it.",
            facts={"path": str(path)},
        ) from error
    log.warning("%s was put aside as %s: %s.", path, aside.name, why)
