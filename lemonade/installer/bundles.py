"""What is installed, and in what state: looks at the disk, changes nothing, starts nothing.

A bundle lies in `<root>/<recipe>/<variant>/<version>` and counts only with its receipt. A backend
may also be somebody else's program: on PATH, or where the operator's pin points.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import LemonadeError, UnsupportedHere
from lemonade.core.ids import BackendId
from lemonade.hardware import Machine
from lemonade.installer.receipts import RECEIPT, Receipt, read_receipt
from lemonade.planning.selection import PinKind, Selection
from lemonade.planning.support import judge

State = Literal[
    "installed",
    "installable",
    "update_required",
    "update_available",
    "unsupported",
    "action_required",
]

VENV: Final = "venv"
"""The private environment inside a bundle of the source `pypi`."""


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend on this machine.

    Attributes:
        message: why it is not simply `installed`, as a sentence; empty if it is.
        action: the command that changes it; may be empty.
        version: what is installed, or what would be.
        can_uninstall: whether there is something of ours to remove.
        usable: whether a model can be loaded with it now, be it the wanted version or not.
    """

    state: State
    message: str
    action: str
    version: str
    can_uninstall: bool
    usable: bool = False


class Bundles:
    """Knows the bundles under one directory. Made by the composition root; keeps small caches."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        """Nothing is looked at yet.

        Args:
            root: directory of all bundles; it need not exist.
            environ: for its `PATH`.
        """
        self.root = root
        self._environ = environ
        self._receipts: dict[Path, tuple[tuple[int, ...], Receipt | None]] = {}
        self._versions: dict[tuple[str, tuple[int, ...]], str] = {}

    def active(self, selection: Selection) -> Bundle | None:
        """What a child of that backend would be started from now; `None` if nothing can.

        What is wanted, if it is here; otherwise what else is here and made for this machine, as
        nobody has to do without an engine because a newer one is wanted. Only a version that the
        operator names is that one or none. Cheap: some calls of stat.

        Raises:
            UnsupportedHere: the pin names something that cannot be used.
        """
        spec = selection.spec
        if selection.path is not None:
            return self._pinned(spec, selection.path)
        if spec.pin.source == "system":
            return self._on_path(spec)
        if spec.pin.source == "path":
            return None
        if selection.version:
            wanted = self._complete(spec, self._folder(spec) / selection.version)
            if wanted is not None or selection.kind is PinKind.TAG:
                return wanted
        return self._newest(selection)

    def present(self, spec: BackendSpec) -> tuple[Bundle, ...]:
        """Every complete bundle of the backend, in whatever version."""
        folder = self._folder(spec)
        if not spec.pin.fetched or not folder.is_dir():
            return ()
        found = (self._complete(spec, path) for path in sorted(folder.iterdir()))
        return tuple(bundle for bundle in found if bundle is not None)

    def status(self, selection: Selection, machine: Machine) -> BackendStatus:
        """The backend's state in the words of `system-info`. Never raises for a bad pin."""
        spec = selection.spec
        versions = self._versions_on_disk(spec)
        removable = bool(versions)
        verdict = judge(spec, machine)
        if not verdict.supported:
            refused: State = "action_required" if verdict.actionable else "unsupported"
            return BackendStatus(refused, verdict.reason, "", "", removable)
        try:
            bundle = self.active(selection)
        except LemonadeError as error:
            return BackendStatus("unsupported", str(error), "", "", removable)
        action = f"lemonade backends install {spec.id}"
        if bundle is not None:
            version = self.version_of(bundle)
            state: State = "installed"
            message = ""
            if bundle.removable and not selection.satisfied_by(bundle.version):
                latest = selection.kind is PinKind.LATEST
                state = "update_available" if latest else "update_required"
                wanted = "can be had" if latest else "is needed"
                message = f"{version} is installed, {selection.version} {wanted}."
            shown = action if message else ""
            return BackendStatus(
                state, message, shown, version, removable and bundle.removable, usable=True
            )
        if not spec.pin.fetched:
            missing = f"{spec.pin.executable or 'The program'} is not on PATH."
            if spec.pin.source == "path":
                missing = "No path to it is configured."
            return BackendStatus("unsupported", missing, "", "", can_uninstall=False)
        version = selection.version or spec.pin.version
        if version in versions:
            gone = "program" if spec.pin.source == "github" else "Python it was installed with"
            message = f"{version} is there, but the {gone} is gone."
            return BackendStatus("update_required", message, action, version, removable)
        if versions:
            message = f"{versions[-1]} is installed, {version} is needed."
            return BackendStatus("update_required", message, action, versions[-1], removable)
        message = "It is supported here but not installed."
        return BackendStatus("installable", message, action, version, removable)

    def version_of(self, bundle: Bundle) -> str:
        """The bundle's version; of somebody else's program what it said of itself, once asked."""
        return self._versions.get(_fingerprint(bundle.argv[0]), bundle.version)

    def learn_version(self, bundle: Bundle, version: str) -> None:
        """Remember what a program said of itself, for as long as its file stays as it is."""
        if version:
            self._versions[_fingerprint(bundle.argv[0])] = version

    def _folder(self, spec: BackendSpec) -> Path:
        return self.root / spec.backend_id.recipe / spec.backend_id.variant

    def _newest(self, selection: Selection) -> Bundle | None:
        folder = self._folder(selection.spec)
        if not folder.is_dir():
            return None
        found = [
            (receipt.installed_at, path.name)
            for path in folder.iterdir()
            if (receipt := self._receipt(path)) is not None
            and receipt.made_for == selection.made_for
            and self._complete(selection.spec, path) is not None
        ]
        return self._complete(selection.spec, folder / max(found)[1]) if found else None

    def _complete(self, spec: BackendSpec, path: Path) -> Bundle | None:
        return bundle_of(self._receipt(path), spec.backend_id, path, spec.bundle.argv)

    def _versions_on_disk(self, spec: BackendSpec) -> list[str]:
        """Of all bundles with a receipt, whether their interpreter still exists or not."""
        folder = self._folder(spec)
        if not spec.pin.fetched or not folder.is_dir():
            return []
        receipts = [self._receipt(path) for path in sorted(folder.iterdir())]
        return [receipt.version for receipt in receipts if receipt is not None]

    def _receipt(self, path: Path) -> Receipt | None:
        if path.name.startswith("."):
            return None  # being built or being removed
        try:
            stamp = _stamp(path / RECEIPT)
        except OSError:
            return None
        known = self._receipts.get(path)
        if known is None or known[0] != stamp:
            known = self._receipts[path] = (stamp, read_receipt(path))
        return known[1]

    def _pinned(self, spec: BackendSpec, path: Path) -> Bundle:
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
        return self._foreign(spec, program)

    def _on_path(self, spec: BackendSpec) -> Bundle | None:
        found = shutil.which(spec.pin.executable, path=self._environ.get("PATH", os.defpath))
        return self._foreign(spec, Path(found).absolute()) if found else None

    def _foreign(self, spec: BackendSpec, path: Path) -> Bundle:
        if not os.access(path, os.X_OK):
            raise UnsupportedHere(
                f"{spec.id} is configured to be {path}, which may not be executed.",
                remedy=f"`chmod +x {path}`, or give 'builtin'.",
            )
        argv: tuple[str, ...] = (str(path),)
        if spec.pin.source != "pypi":  # the fixed arguments of a private environment do not fit
            argv = tuple(_filled(word, path) for word in spec.bundle.argv)
        return Bundle(
            backend=spec.backend_id,
            version="system" if spec.pin.source == "system" else "custom",
            root=path.parent,
            argv=argv,
            removable=False,
        )


def bundle_of(
    receipt: Receipt | None, backend: BackendId, path: Path, argv: Sequence[str]
) -> Bundle | None:
    """The bundle in a directory; `None` if it is incomplete or its program is gone."""
    if receipt is None or receipt.backend != str(backend):
        return None
    contents = receipt.contents
    program = interpreter(path) if contents is None else path / contents.executable
    if not program.exists():
        return None  # a link to an interpreter that was removed does not exist either
    libraries: tuple[Path, ...] = ()
    if receipt.runtime is not None:
        found = receipt.runtime.folders(path.parents[2])
        if found is None:
            return None  # the system's own was removed since
        libraries = found
    runtime = "".join(f"{folder}:" for folder in libraries)
    words = tuple(_filled(word, program).replace("{runtime}", runtime) for word in argv)
    return Bundle(
        backend=backend, version=receipt.version, root=path, argv=words, libraries=libraries
    )


def interpreter(bundle: Path) -> Path:
    """The Python of a bundle's private environment."""
    return bundle / VENV / "bin" / "python"


def _filled(word: str, program: Path) -> str:
    """A word of a command line, with the program that was found in its places."""
    for placeholder in ("{python}", "{executable}"):
        word = word.replace(placeholder, str(program))
    return word.replace("{folder}", str(program.parent))


def _program_at(path: Path, name: str) -> Path | None:
    """The file itself, or the program of that name in the folder; `None` if there is none."""
    places = (path / name, path / "bin" / name) if name and path.is_dir() else (path,)
    return next((place for place in places if place.is_file()), None)


def _fingerprint(program: str) -> tuple[str, tuple[int, ...]]:
    try:
        return (program, _stamp(Path(program)))
    except OSError:
        return (program, ())


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when the file does, also where a copy keeps the time and the size."""
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)
