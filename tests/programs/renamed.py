"""Runs a program that calls itself something else: its name and its whole command line.

vLLM's processes do that to theirs, so neither says what they run. What the program starts has the
same command line until it takes another one.

    python renamed.py VLLM::APIServer fake_engine.py --port 8123 --spawn-engine
"""

from __future__ import annotations

import ctypes
import runpy
import sys
from pathlib import Path

PR_SET_NAME = 15
ARG_START = 45
"""Where `/proc/PID/stat` has the address of the command line, counted behind the name."""


def rename(title: bytes) -> None:
    """Write over the memory that the kernel shows as our command line."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, title, 0, 0, 0)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = map(int, fields[ARG_START : ARG_START + 2])
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    _, title, program, *arguments = sys.argv
    rename(title.encode())
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")
