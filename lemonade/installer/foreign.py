"""Somebody else's programs, on PATH or where the operator's pin points. Never changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import UnsupportedHere


def pinned_program(spec: BackendSpec, path: Path) -> Bundle:
    """The operator's own program, or the one in a folder of the operator's.

    Raises:
        UnsupportedHere: it is not there, or may not be used.
    """
    try:
        program = _program_at(path, spec.pin.executable)
    except OSError as error:
        raise UnsupportedHere(
            f"{spec.id} is configured to be {path}, which cannot be looked at: "
            f"{error.strerror or error}.",
            remedy="Correct the path, or give 'builtin'.",
        ) from error
    if program is None:
        raise UnsupportedHere(
            f"{spec.id} is configured to be {path}, and there is no such program.",
            remedy="Correct the path, or give 'builtin'.",
        )
    return _foreign(spec, program)


def program_on_path(spec: BackendSpec, environ: Mapping[str, str]) -> Bundle | None:
    """The program of that name on PATH.

    Raises:
        UnsupportedHere: it may not be used.
    """
    found = shutil.which(spec.pin.executable, path=environ.get("PATH", os.defpath))
    return _foreign(spec, Path(found).absolute()) if found else None


def filled(word: str, program: Path) -> str:
    """A word of a command line, with the program that was found in its places."""
    for placeholder in ("{python}", "{executable}"):
        word = word.replace(placeholder, str(program))
    return word.replace("{folder}", str(program.parent))


def _foreign(spec: BackendSpec, path: Path) -> Bundle:
    if not os.access(path, os.X_OK):
        raise UnsupportedHere(
            f"{spec.id} is configured to be {path}, which may not be executed.",
            remedy=f"`chmod +x {path}`, or give 'builtin'.",
        )
    argv: tuple[str, ...] = (str(path),)
    if spec.pin.source != "pypi":  # the fixed arguments of a private environment do not fit
        argv = tuple(filled(word, path) for word in spec.bundle.argv)
    return Bundle(
        backend=spec.backend_id,
        version="system" if spec.pin.source == "system" else "custom",
        root=path.parent,
        argv=argv,
        removable=False,
    )


def _program_at(path: Path, name: str) -> Path | None:
    """The file itself, or the program of that name in the folder; `None` if there is none."""
    places = (path / name, path / "bin" / name) if name and path.is_dir() else (path,)
    return next((place for place in places if place.is_file()), None)
