"""The kernel's own log: its records with their times, or why they cannot be read.

`/dev/kmsg` where it may be opened, else what `dmesg` reads. Everything blocks, for half a second
at most.
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass

LOG: Final = Path("/dev/kmsg")

_READ_BYTES: Final = 16384
_READ_SECONDS: Final = 0.5
_RECORD: Final = re.compile(r"\d+,\d+,(\d+),[^;]*;(.*)")
_LINE: Final = re.compile(r"<\d+>\[ *(\d+\.\d+)\] (.*)")
_SYSLOG_READ_ALL: Final = 3
_RING_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class KernelLog:
    """What the kernel still has.

    Attributes:
        records: seconds since boot, and what was said.
        unread: why there are none, as the end of a sentence; empty if it could be read.
    """

    records: tuple[tuple[float, str], ...] = ()
    unread: str = ""


def read_kernel_log(log: Path = LOG) -> KernelLog:
    """Every record the kernel still has. Never waits for one to come."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        lines = _ring() if log == LOG else None
        if lines is None:
            return KernelLog(unread=f"{log} cannot be read: {error.strerror}")
        return KernelLog(tuple((float(one[1]), one[2]) for one in map(_LINE.match, lines) if one))
    try:
        return KernelLog(tuple(_records(descriptor)))
    finally:
        os.close(descriptor)


def _records(descriptor: int) -> Iterator[tuple[float, str]]:
    begun = time.monotonic()
    while time.monotonic() - begun < _READ_SECONDS:
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BrokenPipeError:  # the record was overwritten while we read
            continue
        except OSError:  # that was the last
            return
        if not data:
            return
        for line in data.decode("utf-8", "replace").splitlines():
            if (record := _RECORD.match(line)) is not None:
                yield int(record[1]) / 1e6, record[2]


def _ring() -> list[str] | None:
    """The lines that `dmesg` would show; `None` if we may not see them."""
    buffer = ctypes.create_string_buffer(_RING_BYTES)
    try:
        size = ctypes.CDLL(None).klogctl(_SYSLOG_READ_ALL, buffer, _RING_BYTES)
    except (OSError, AttributeError):  # not every system has it
        return None
    return None if size < 0 else buffer.raw[:size].decode("utf-8", "replace").splitlines()
