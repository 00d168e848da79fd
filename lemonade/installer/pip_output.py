"""What pip prints, read: how far it is, and what went wrong. Pure.

pip has no interface but its command line, so its words are matched here and nowhere else. Words
that are not recognised cost a progress bar or a finer error, nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

from lemonade.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    InstallError,
    NoSpace,
    SetupFailed,
)
from lemonade.core.progress import Progress

CREATE: Final = "create environment"
INSTALL: Final = "install"
CHECK: Final = "check"
_FETCH: Final = "fetch"
_FURTHER_STEPS: Final = 3

_FILE: Final = re.compile(r"\s*(?:Downloading|Using cached|Processing)\s+(\S+)")
_BYTES: Final = re.compile(r"Progress (\d+) of (\d+)\s*\Z")

_MISSING: Final = re.compile(r"No matching distribution found for (\S+)")

_DISK: Final = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "[Errno 28]",
    "[Errno 27]",
)
_NETWORK: Final = (
    "Connection refused",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Max retries exceeded",
    "Read timed out",
    "ConnectTimeoutError",
    "ProxyError",
    "CERTIFICATE_VERIFY_FAILED",
    "Connection broken",
    "IncompleteRead",
    "HTTP error",
)


class PipReader:
    """Follows one run of pip line by line, which fetches `count` files.

    `sizes` are those of files that need no download, in bytes; pip says nothing about them.
    """

    def __init__(self, count: int, sizes: Mapping[str, int]) -> None:
        self._count = max(1, count)
        self._local = sizes
        self._sizes: dict[str, int] = {}
        self._file = ""

    def read(self, line: str) -> Progress | None:
        """What to show after this line, if it says anything new."""
        if match := _BYTES.match(line):
            done, size = int(match[1]), int(match[2])
            if self._file:
                self._sizes[self._file] = size
            return self._fetching(done, size)
        if match := _FILE.match(line):
            name = unquote(PurePosixPath(match[1].partition("#")[0].partition("?")[0]).name)
            if not name.endswith(".whl"):
                return None  # what pip looks into before it fetches the file itself
            self._file = name
            size = self._sizes[name] = self._local.get(name, 0)
            return self._fetching(size, size)
        if line.startswith("Installing collected packages"):
            return self.step(INSTALL)
        return None

    def step(self, name: str) -> Progress:
        """A frame for a step that is no file."""
        number = {CREATE: 1, _FETCH: 2, INSTALL: self._count + 2, CHECK: self._count + 3}[name]
        return self._frame(number, name)

    def looking(self) -> Progress:
        """A frame for the time before pip has said which file is the first."""
        return self.step(_FETCH)

    def _fetching(self, done: int, size: int) -> Progress:
        number = 1 + min(self._count, max(1, len(self._sizes)))
        return self._frame(number, f"{_FETCH} {self._file}".rstrip(), done, size)

    def _frame(self, number: int, name: str, done: int = 0, size: int = 0) -> Progress:
        # pip asks for one file after the other: the whole is known when the last one has begun.
        known = len(self._sizes) >= self._count and all(self._sizes.values())
        whole = sum(self._sizes.values()) if known else 0
        return Progress(name, number, self._count + _FURTHER_STEPS, done, size, whole)


def explain(what: str, lines: Sequence[str], status: int) -> InstallError:
    """The error that the end of pip's output amounts to, when `what` was being installed."""
    text = "\n".join(lines)
    facts = {"last_lines": list(lines), "exit_status": status}
    if any(words in text for words in _DISK):
        return NoSpace(
            f"There is no space left to install {what}.",
            remedy="Free some space, or move the cache with LEMONADE_CACHE_DIR, and try again.",
            facts=facts,
        )
    if "DO NOT MATCH THE HASHES" in text or "Hashes are required" in text:
        return ChecksumMismatch(
            f"A file for {what} is not the one that was pinned; it was thrown away.",
            remedy="The package index or the folder of wheels gave another file. Try again; if it "
            "stays so, do not trust that source.",
            facts=facts,
        )
    if any(words in text for words in _NETWORK):
        return DownloadFailed(
            f"The files of {what} could not be fetched: the package index does not answer.",
            remedy="Check network and proxy, or put the wheels into a folder and name it in "
            "LEMONADE_WHEELS.",
            facts=facts,
        )
    if (missing := _MISSING.search(text)) and "+" in missing[1]:
        return DownloadFailed(
            f"{what} needs {missing[1]}, a build that the package index does not have for this "
            "machine and this Python.",
            remedy="Name the index of its makers in LEMONADE_PYPI_EXTRA_URL, or put the wheel "
            "into a folder and name that in LEMONADE_WHEELS.",
            facts=facts,
        )
    if missing or "is not a supported wheel" in text:
        return DownloadFailed(
            f"The package index has no file of {what} for this machine and this Python.",
            remedy="Name an index that has it in LEMONADE_PYPI_URL, or a folder of wheels in "
            "LEMONADE_WHEELS.",
            facts=facts,
        )
    return SetupFailed(
        f"pip could not install {what} (exit status {status}).",
        remedy="Its last lines say why.",
        facts=facts,
    )
