"""Engines on this disk: is all there that was installed, and did something stay half done?"""

from __future__ import annotations

import os
from pathlib import Path

from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence
from lemonade.installer import InspectedBundle, inspect_bundles


def check_engines(root: Path) -> tuple[Finding, ...]:
    """Look at every bundle under a folder.

    Raises:
        OSError: a folder cannot be listed.
    """
    book = Notebook("engines")
    found = inspect_bundles(root)
    whole = [bundle for bundle in found if bundle.state == "whole"]
    for bundle in whole:
        book.ok(f"{bundle.backend} {bundle.version} is complete.")
    for bundle in found:
        if bundle.state != "whole":
            _tell(book, bundle)
    if not whole:
        book.note(
            "none-installed",
            "No engine is installed.",
            Evidence(str(root), "no complete bundle"),
            fix="`lemonade backends --all` shows what this machine can run; loading a model "
            "installs what it needs.",
        )
    return book.findings


def _tell(book: Notebook, bundle: InspectedBundle) -> None:
    seen = Evidence(str(bundle.path), bundle.reason or bundle.state)
    again = f"`lemonade backends install {bundle.backend}"
    match bundle.state:
        case "broken":
            book.error(
                "broken",
                f"{bundle.backend} {bundle.version or bundle.path.name} is damaged. "
                f"{bundle.reason}",
                *(Evidence(str(bundle.path / name), "missing") for name in bundle.missing),
                *(() if bundle.missing else (seen,)),
                fix=f"{again} --force` installs it again.",
            )
        case "leftover":
            book.note(
                "leftover",
                f"An installation of {bundle.backend} was interrupted; what it left takes disk "
                "space and nothing else.",
                Evidence(str(bundle.path), _age(bundle.path)),
                fix=f"The next {again}` removes it.",
            )
        case "under-way":
            book.note("under-way", f"{bundle.backend} is being installed now.", seen)
        case "flat":
            book.note(
                "flat",
                f"{bundle.path} is laid out as another program does it: one version, without a "
                "list of its files.",
                seen,
            )
        case "unknown":
            book.note(
                "unknown",
                f"{bundle.path} is not a bundle of Lemonade's. {bundle.reason}",
                seen,
                fix="Remove it if you did not put it there.",
            )
        case "whole":
            return


def _age(path: Path) -> str:
    files = sum(len(names) for _, _, names in os.walk(path))
    return f"{files} files, without a receipt"
