"""Looks at what somebody hands over: what it is, what it hashes to, and who vouches for it.

Blocks. Nothing is changed here, and nothing is believed: what is unpacked is checked once more.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lemonade.catalog import BackendSpec
from lemonade.core.errors import ChecksumMismatch, MalformedRequest
from lemonade.hardware import Machine
from lemonade.installer.trees import tree_digest
from lemonade.installer.trust import recorded_digest
from lemonade.planning.given import ARCHIVES, Given, is_planned, part_names, stem
from lemonade.planning.releases import plan_release

_PIECE: Final = 1 << 20
_MOST_PARTS: Final = 99
_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
_READABLE: Final = "The server must be able to read it; paths are those of the server's machine."


def read_digest(text: str) -> str:
    """A digest that somebody wrote, in our form; empty stays empty.

    Raises:
        MalformedRequest: it is none.
    """
    if not text:
        return ""
    match = _DIGEST.fullmatch(text.strip())
    if match is None:
        raise MalformedRequest(
            f"'{text[:80]}' is not a SHA-256.", remedy="It has 64 digits of 0-9 and a-f."
        )
    return match[1].lower()


def look_at(
    path: Path, spec: BackendSpec, machine: Machine, root: Path, *, said: str, origin: str
) -> Given:
    """What it is.

    Args:
        path: a file or a folder.
        spec: the backend it is for, in the version that was named or is pinned.
        machine: where it shall run.
        root: directory of all bundles, with the record of earlier digests.
        said: the digest that somebody vouches for; may be empty.
        origin: where it came from, as it is shown.

    Raises:
        MalformedRequest: there is no such thing, it cannot be read, or it is not what is needed.
        ChecksumMismatch: it is not the file it is called.
        UnsupportedHere: there is nothing for this machine that it could be.
    """
    try:
        kind = path.stat().st_mode
        if spec.pin.source == "pypi":
            return _wheels(path, spec, origin, folder=stat.S_ISDIR(kind))
        if stat.S_ISDIR(kind):
            name, files = _in_folder(path, spec, machine)
        elif stat.S_ISREG(kind):
            name, files = path.name, (path,)
        else:
            raise _refused(path, "is neither a file nor a folder")
        if not files:
            return _tree(path, spec, said, origin)
        if not name.endswith(ARCHIVES):
            raise _refused(
                path,
                "is not an archive that Lemonade can unpack",
                f"It must end in {', '.join(ARCHIVES)}.",
            )
        sizes = tuple(file.stat().st_size for file in files)
        digests, whole = _hash(files)
    except OSError as error:
        where = Path(error.filename) if error.filename else path
        raise _refused(where, f"cannot be read: {error.strerror or error}") from error
    voucher = _verify(name, files, digests, whole, said, spec, machine, root)
    return Given(name, origin, files, sizes, whole, voucher)


def _in_folder(folder: Path, spec: BackendSpec, machine: Machine) -> tuple[str, tuple[Path, ...]]:
    """The planned archive or its parts; no files if it may be a tree."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    planned = [name for name in names if is_planned(name, spec, machine)]
    if len(planned) == 1:
        return planned[0], (folder / planned[0],)
    if planned:
        raise _refused(folder, f"has several files that could be meant: {', '.join(planned[:5])}")
    asset = plan_release(spec, machine).asset
    counter = f"{stem(asset.name)}.partcount"
    if not asset.parts or counter not in names:
        return "", ()
    text = (folder / counter).read_text(encoding="ascii", errors="replace").strip()
    if not text.isdigit() or not 1 <= int(text) <= _MOST_PARTS:
        raise _refused(folder / counter, f"should hold a number of parts, and holds '{text[:40]}'")
    return asset.name, tuple(folder / part for part in part_names(asset.name, int(text)))


def _tree(folder: Path, spec: BackendSpec, said: str, origin: str) -> Given:
    program = spec.pin.executable
    found = [
        Path(where, program)
        for where, _, files in os.walk(folder, onerror=_raise)
        if program in files
    ]
    if len(found) != 1:
        places = f"has {program} in {len(found)} places" if found else f"has no {program}"
        raise _refused(
            folder,
            f"{places}, and no archive that this machine would fetch",
            f"It must hold the archive as it is published, or exactly one {program}.",
        )
    if said:
        raise MalformedRequest(
            f"{folder} is a folder, which has no SHA-256 of its own.",
            remedy="Leave the digest out, or give the archive.",
        )
    size, digest = tree_digest(folder)
    return Given(folder.name, origin, (folder,), (size,), digest, "first use", tree=True)


def _wheels(path: Path, spec: BackendSpec, origin: str, *, folder: bool) -> Given:
    place = path if folder else path.parent
    names = sorted(entry.name for entry in place.iterdir() if entry.name.endswith(".whl"))
    if not folder and path.name not in names:
        raise _refused(path, "is not a wheel, and this backend consists of wheels")
    if not names:
        raise _refused(path, "has no wheels", f"{spec.id} consists of Python packages.")
    sizes = tuple((place / name).stat().st_size for name in names)
    return Given(path.name, origin, tuple(place / name for name in names), sizes, "", "pinned")


def _hash(files: Sequence[Path]) -> tuple[list[str], str]:
    """The digest of each, and of all in a row."""
    digests, whole = [], hashlib.sha256()
    for path in files:
        one = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                whole.update(piece)
                one.update(piece)
        digests.append(one.hexdigest())
    return digests, whole.hexdigest()


def _verify(
    name: str,
    files: Sequence[Path],
    digests: Sequence[str],
    whole: str,
    said: str,
    spec: BackendSpec,
    machine: Machine,
    root: Path,
) -> str:
    """Who vouches for it; raises if somebody vouches for another."""
    pins = spec.pin.sha256
    found = {file.name: digest for file, digest in zip(files, digests, strict=True)} | {
        name: whole
    }
    wanted = {called: pins[called] for called in found if called in pins}
    for called, digest in wanted.items():
        if digest != found[called]:
            raise _another(called, digest, found[called])
    if said and said != whole:
        raise _another(name, said, whole)
    if name in wanted or len(wanted) == len(files) or whole in pins.values():
        return "pinned"
    if said:
        return "given"
    if not is_planned(name, spec, machine):
        return "first use"
    recorded = recorded_digest(root, plan_release(spec, machine).path_of(name))
    if recorded and recorded != whole:
        raise _another(name, recorded, whole)
    return "recorded" if recorded else "first use"


def _another(name: str, wanted: str, found: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"{name} is not the file that was expected: its SHA-256 is {found} instead of {wanted}. "
        "It was not used.",
        remedy="Get it anew, or from another place; do not trust that one.",
        facts={"file": name, "expected": wanted},
    )


def _refused(path: Path, why: str, remedy: str = _READABLE) -> MalformedRequest:
    return MalformedRequest(f"{path} {why}.", remedy=remedy, facts={"path": str(path)})


def _raise(error: OSError) -> None:
    raise error
