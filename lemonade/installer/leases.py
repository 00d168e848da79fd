"""Who runs a version, and who may remove it.

Whoever starts a child shares the claim on the version's receipt (of a legacy tree: on its
`version.txt`) until nothing of the child is left; whoever wants to remove or replace the version
needs the claim alone. The kernel ends a claim with the process that has it, so a server that was
killed holds nothing. The file is never written to: sharing works where nothing may be changed.

An engine that outlives its server is without a claim until the next server shares it again. Who
removes a version therefore asks, once the claim is his alone, who is `Unheld` besides: those whose
server holds a claim cannot join them any more, and nobody new can start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

from lemonade.core.bundle import Bundle
from lemonade.core.errors import BadConfigFile, Locked
from lemonade.installer.legacy import VERSION_FILE
from lemonade.installer.receipts import RECEIPT
from lemonade.storage import FileLock

VersionLease = FileLock
"""Keeps a version from being removed until it is released."""

Unheld: TypeAlias = Callable[[], Mapping[str, str]]
"""Which versions engines run from without a claim: who, in words, by the folder without links.
Whose engines these are is not this room's business. Blocks; an `OSError`: nobody can tell."""


def nobody() -> Mapping[str, str]:
    """`Unheld` where every engine ends with its server."""
    return {}


def lease(bundle: Bundle) -> VersionLease | None:
    """Keep a version from being removed until the lease is released.

    `None` if it is gone, or just being removed. Does not wait.
    """
    file = RECEIPT if bundle.verified else VERSION_FILE
    claim = FileLock(bundle.root / file, shared=True, existing=True)
    try:
        return claim if claim.acquire() else None
    except BadConfigFile:
        return None


def lease_again(lock: Path) -> VersionLease | None:
    """The same for a version that an engine runs already, by the file that was leased before."""
    claim = FileLock(lock, shared=True, existing=True)
    try:
        return claim if claim.acquire() else None
    except BadConfigFile:
        return None


def in_use(root: Path) -> bool:
    """Whether a running engine holds the version in a folder."""
    return any(_is_held(file) for file in _files(root))


@contextmanager
def claimed(
    backend: str, roots: Sequence[tuple[str, Path]], unheld: Unheld = nobody
) -> Iterator[None]:
    """Have versions, given as name and folder, for oneself alone: all of them or none.

    Raises:
        Locked: a running engine uses one; the facts name it.
        OSError: it cannot be told who uses one.
    """
    with ExitStack() as claims:
        for version, root in roots:
            for file in _files(root):
                claim = FileLock(file, existing=True)
                if not claim.acquire():
                    raise Locked(
                        f"{backend} {version} is used by a running engine.",
                        remedy="Unload its model, in whichever server it runs, and try again.",
                        facts={"backend": backend, "version": version, "path": str(root)},
                    )
                claims.callback(claim.release)
        users = unheld() if roots else {}
        for version, root in roots:
            if who := users.get(os.path.realpath(root)):
                raise Locked(
                    f"{backend} {version} is used by a running engine: {who}.",
                    remedy="`lemonade serve` takes it over, and its model can be unloaded then; "
                    "`lemonade reap --kept` ends it without a server.",
                    facts={
                        "backend": backend,
                        "version": version,
                        "path": str(root),
                        "used_by": who,
                    },
                )
        yield


def _is_held(file: Path) -> bool:
    claim = FileLock(file, existing=True)
    try:
        if claim.acquire():
            claim.release()
            return False
    except BadConfigFile:
        return False  # what cannot be opened for writing is not ours to remove either
    return file.exists()


def _files(root: Path) -> list[Path]:
    """What stands for a version in its folder."""
    if (root / RECEIPT).is_file():
        return [root / RECEIPT]
    return [root / VERSION_FILE] if (root / VERSION_FILE).is_file() else []
