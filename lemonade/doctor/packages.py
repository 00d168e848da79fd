"""Python packages that got in from elsewhere: PYTHONPATH, PYTHONHOME, `~/.local`.

Engines in Python run in environments of their own and are told to look nowhere else. The server
itself is an ordinary program: a package of the same name that lies earlier on its path is taken
instead of the one it was installed with.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence

OURS: Final = (
    "aiohttp", "click", "huggingface_hub", "msgspec", "prometheus_client", "psutil", "pydantic",
    "requests", "rich", "uvloop",
)  # fmt: skip
"""What the server imports."""

ENGINES: Final = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "triton")
"""What engines in Python are made of, beside the packages that backends name."""


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter that runs the server.

    Attributes:
        search_path: where it looks for packages, in order.
        user_site: the folder of `pip install --user` for it; empty if it does not look there.
    """

    search_path: tuple[str, ...]
    user_site: str


def check_packages(
    environ: Mapping[str, str], python: Python, home: Path, engines: Collection[str]
) -> tuple[Finding, ...]:
    """Look for packages from elsewhere.

    Args:
        environ: its variables.
        python: that runs us.
        home: whose `.local` is looked into.
        engines: names of further packages that engines are made of.
    """
    book = Notebook("python")
    if value := environ.get("PYTHONHOME"):
        book.warn(
            "python-home",
            "PYTHONHOME is set: the server's Python takes its standard library from there.",
            Evidence("$PYTHONHOME", value),
            fix="`unset PYTHONHOME` where the server is started.",
        )
    given = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    foreign = [*given, *([python.user_site] if python.user_site else [])]
    shadowed = _shadowed(python.search_path, foreign)
    for folder, names in shadowed.items():
        origin = "PYTHONPATH" if folder in given else "`pip install --user`"
        book.warn(
            "shadowed",
            f"The server takes {', '.join(names)} from {folder} ({origin}) and not from where it "
            "was installed; another version of them may break it.",
            *(Evidence(str(_place(folder, name)), "is found first") for name in names),
            fix="`unset PYTHONPATH` where the server is started."
            if folder in given
            else "Start the server with PYTHONNOUSERSITE=1, or "
            f"`pip uninstall {' '.join(names)}` outside of its environment.",
        )
    wanted = sorted({*ENGINES, *engines})
    for folder in given:
        _tell_of_engines(book, folder, wanted, f"PYTHONPATH names {folder}, which")
    for user_site in _user_sites(home):
        _tell_of_engines(book, str(user_site), wanted, f"The folder {user_site}")
    book.ok_unless_trouble("The server's Python packages are those it was installed with.")
    return book.findings


def _tell_of_engines(book: Notebook, folder: str, wanted: Sequence[str], who: str) -> None:
    found = [name for name in wanted if _place(folder, name) is not None]
    if found:
        book.note(
            "engine-packages",
            f"{who} holds {', '.join(found)}. Engines that Lemonade starts do not look there "
            "(PYTHONNOUSERSITE=1, no PYTHONPATH); an engine you start by hand would take them "
            "instead of its own.",
            *(Evidence(str(_place(folder, name)), "is there") for name in found),
        )


def _shadowed(search_path: Sequence[str], foreign: Sequence[str]) -> dict[str, list[str]]:
    """Per foreign folder, our packages that are found there first and elsewhere too."""
    found: dict[str, list[str]] = {}
    for name in OURS:
        places = [folder for folder in search_path if folder and _place(folder, name)]
        if len(set(places)) > 1 and places[0] in foreign:
            found.setdefault(places[0], []).append(name)
    return found


def _place(folder: str, name: str) -> Path | None:
    """Where the folder has that package; `None` if it has not."""
    candidates = (Path(folder, name), Path(folder, f"{name}.py"))
    return next((path for path in candidates if path.exists()), None)


def _user_sites(home: Path) -> list[Path]:
    return sorted((home / ".local/lib").glob("python3.*/site-packages"))
