"""Where engines keep what they compile: a folder of ours for each version of a backend.

Kernels and graphs are compiled at the first load, which takes minutes, and are of use to the same
build only. So they are kept where they outlive a restart, nobody else's program finds them, and
they go when their version has gone.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import OutOfDisk, SpawnFailed
from lemonade.core.ids import BackendId

_FOLDER: Final = "compile"
_OWN: Final = "own"
"""Stands for the version of a program that is not part of a bundle: it may change unseen."""


def compile_cache(bundles: Path, bundle: Bundle) -> Path:
    """The folder of a version, beside the directory of all bundles; it need not exist."""
    return _place(bundles, bundle.backend, bundle.version if bundle.removable else _OWN)


def make_compile_cache(path: Path, env: Mapping[str, str]) -> None:
    """Make the folder, if a variable of the child's speaks of it. Blocks.

    Only we may look into it: what lies there is executed.

    Raises:
        OutOfDisk: there is no space.
        SpawnFailed: it cannot be made.
    """
    if not any(str(path) in value for value in env.values()):
        return
    try:
        _make(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk(
                f"There is no space for what the engine compiles ({path}).",
                remedy="`lemonade backends prune` removes what nobody needs.",
            ) from error
        raise SpawnFailed(
            f"The folder for what the engine compiles cannot be made: {error.strerror} ({path}).",
            remedy=f"Check the owner and permissions of {path.parent}.",
        ) from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(exist_ok=True)
    for folder in (
        path.parent,
        path,
    ):  # an engine that was only asked something may have been here
        folder.chmod(0o700)


def compiled_for_nothing(
    bundles: Path, known: Iterable[tuple[BackendSpec, Iterable[str]]]
) -> list[Path]:
    """The folders of versions that are not there any more. Blocks.

    Args:
        bundles: the directory of all bundles.
        known: every backend with its versions that are here.
    """
    wanted = {
        _place(bundles, spec.backend_id, version)
        for spec, versions in known
        for version in (*versions, _OWN)
    }
    root = bundles.parent / _FOLDER
    return [path for path in sorted(root.glob("*")) if path not in wanted]


def _place(bundles: Path, backend: BackendId, version: str) -> Path:
    name = f"{backend.recipe}-{backend.variant}-{version or _OWN}"
    return bundles.parent / _FOLDER / re.sub(r"[^A-Za-z0-9._+-]", "_", name)
