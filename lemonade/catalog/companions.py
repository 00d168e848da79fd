"""What lies beside a backend's descriptor and belongs to it, and the digests that say so.

A signature is of the descriptor alone. What else is run or believed because of it is bound to it
by the digests in its table `[files]`; where a signature is asked for, it must name all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.reading import bad
from lemonade.catalog.templates import overlay_beside


def check_files(spec: BackendSpec, path: Path, *, complete: bool) -> None:
    """Compare the files beside a descriptor with the digests in it.

    Args:
        spec: of the backend.
        path: its descriptor.
        complete: whether every file must be named.

    Raises:
        BadDescriptor: one is missing, is another one, or is not named.
    """
    for name, digest in spec.files.items():
        try:
            found = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        except OSError as error:
            reason = f"the file cannot be read: {error.strerror or error}"
            raise bad(path, ("files", name), reason) from error
        if found != digest:
            raise bad(path, ("files", name), f"the file has another SHA-256: {found}")
    for name in _companions(spec, path) if complete else ():
        if name not in spec.files:
            raise bad(
                path,
                ("files",),
                f"{name} belongs to it, and without its SHA-256 there no signature covers it",
            )


def _companions(spec: BackendSpec, path: Path) -> Iterator[str]:
    """Everything but real folders, by its path from the descriptor's folder."""
    pins = (spec.pin, *(channel.pin for channel in spec.channels.values()))
    yield from sorted({pin.lock for pin in pins if pin.lock})
    overlay = overlay_beside(path)
    for found in sorted(overlay.rglob("*")):
        if found.is_symlink() or not found.is_dir():
            yield found.relative_to(path.parent).as_posix()
