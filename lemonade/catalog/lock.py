"""The lock of a backend: every package it consists of, its version and the digests of its files.

The form is the one pip reads, of which only this much: `name==version`, perhaps a condition on
Python's version or the processor, and SHA-256 digests. Addresses, options and ranges are mistakes,
told with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.errors import BadDescriptor
from lemonade.core.records import dataclass

_HASH: Final = re.compile(r"\s--hash=(\S*)")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_PACKAGE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_]*)"
    r"(?:\s*;\s*(?P<marker>.+))?"
)
_TEST: Final = r"(?:python_version|platform_machine) (?:==|!=|<=|>=|<|>) \"[\w.]+\""
_MARKER: Final = re.compile(rf"{_TEST}(?: (?:and|or) {_TEST})*")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package.

    Attributes:
        name: as package indexes compare it: small letters and hyphens.
        version: the only one that is taken.
        sha256: digests of its files; no other is accepted.
        marker: when it is wanted, in the words of a requirement; empty for always.
    """

    name: str
    version: str
    sha256: tuple[str, ...]
    marker: str = ""

    def requirement(self) -> str:
        """The line for `pip install --require-hashes`."""
        marker = f" ; {self.marker}" if self.marker else ""
        hashes = "".join(f" --hash=sha256:{digest}" for digest in self.sha256)
        return f"{self.name}=={self.version}{marker}{hashes}"


def normal_name(name: str) -> str:
    """A project's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> tuple[LockedPackage, ...]:
    """The packages of a lock, in order. Blocks.

    Raises:
        BadDescriptor: it cannot be read, or says something that a lock does not say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadDescriptor(
            f"{path} cannot be read: {reason}.", facts={"file": str(path)}
        ) from error
    found: dict[tuple[str, str], LockedPackage] = {}
    conditional: dict[str, bool] = {}
    for number, line in _logical_lines(text):
        package = _package(path, number, line)
        if package.name in conditional and not (package.marker and conditional[package.name]):
            raise _wrong(path, number, f"{package.name} stands there twice")
        conditional[package.name] = bool(package.marker)
        found[package.name, package.version] = package
    if not found:
        raise BadDescriptor(f"{path} locks nothing.", facts={"file": str(path)})
    return tuple(found.values())


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, and the number of the first; no comments, no empty ones."""
    begun, parts = 0, list[str]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        begun = begun if parts else number
        parts.append(line.removesuffix("\\").strip())
        if line.endswith("\\"):
            continue
        if whole := " ".join(filter(None, parts)):
            yield begun, whole
        parts = []
    if whole := " ".join(filter(None, parts)):
        yield begun, whole


def _package(path: Path, number: int, line: str) -> LockedPackage:
    digests = []
    for given in _HASH.findall(line):
        digest = _DIGEST.fullmatch(given)
        if digest is None:
            raise _wrong(path, number, f"'{given}' is not sha256: and 64 digits of 0-9 and a-f")
        digests.append(digest[1])
    requirement = _HASH.sub("", line).strip()
    match = _PACKAGE.fullmatch(requirement)
    if match is None:
        raise _wrong(path, number, f"'{requirement}' is not name==version")
    marker = (match["marker"] or "").replace("'", '"')
    if marker and not _MARKER.fullmatch(marker):
        raise _wrong(
            path,
            number,
            f"'{marker}' is no comparison of python_version or platform_machine",
        )
    if not digests:
        raise _wrong(path, number, f"{match['name']} has no --hash=sha256:")
    return LockedPackage(normal_name(match["name"]), match["version"], tuple(digests), marker)


def _wrong(path: Path, number: int, reason: str) -> BadDescriptor:
    return BadDescriptor(
        f"{path}, line {number}: {reason}.", facts={"file": str(path), "line": number}
    )
