"""What is installed, and in what state: looks at the disk, changes nothing, starts nothing.

A bundle lies in `<root>/<recipe>/<variant>/<version>` and counts only with its receipt; which of
several is used is in `active.json` beside them. A backend may also be what an earlier Lemonade
installed, or somebody else's program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import LemonadeError
from lemonade.core.ids import BackendId
from lemonade.core.records import dataclass
from lemonade.hardware import Machine
from lemonade.installer.foreign import filled, pinned_program, program_on_path
from lemonade.installer.legacy import VERSION_FILE, Legacy, legacy_folders, read_legacy
from lemonade.installer.pointer import POINTER, Pointer, is_name, read_pointer
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
        message: why it is not simply `installed`, or what else there is to say; may be empty.
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
        self._pointers: dict[Path, tuple[tuple[int, ...], Pointer | None]] = {}
        self._legacy: dict[Path, tuple[tuple[int, ...], Legacy]] = {}

    def active(self, selection: Selection) -> Bundle | None:
        """What a child of that backend would be started from now; `None` if nothing can.

        What was activated last, whatever is wanted now: nobody has to do without an engine
        because a newer one is wanted. Only a version that the operator names is that one or none.
        Where nothing was activated, or it is gone or made for another GPU, it is what is wanted,
        else the newest there is. Cheap: some calls of stat.

        Raises:
            UnsupportedHere: the pin names something that cannot be used.
        """
        spec = selection.spec
        if selection.path is not None:
            return pinned_program(spec, selection.path)
        if spec.pin.source == "system":
            return program_on_path(spec, self._environ)
        if spec.pin.source == "path":
            return None
        if selection.kind is PinKind.TAG:
            return self.find(selection, selection.version)
        pointer = self.pointer(spec)
        if pointer is not None and self.suits(selection, pointer.version):
            pointed = self.find(selection, pointer.version)
            if pointed is not None:
                return pointed
        return (
            self.find(selection, selection.version)
            or self._newest(selection)
            or self._earlier(spec)
        )

    def find(self, selection: Selection, version: str) -> Bundle | None:
        """The complete bundle of that version, also if it is for another GPU."""
        spec = selection.spec
        if not is_name(version):
            return None
        if (bundle := self._complete(spec, self.folder(spec) / version)) is not None:
            return bundle
        legacy = self._earlier(spec)
        names = (version, version.removesuffix(f"-{selection.made_for}"))
        return legacy if legacy is not None and legacy.version in names else None

    def suits(self, selection: Selection, version: str) -> bool:
        """Whether a version is made for this machine's GPU, as far as anybody noted it."""
        receipt = self.receipt(self.folder(selection.spec) / version)
        return receipt is None or receipt.made_for == selection.made_for

    def pointer(self, spec: BackendSpec) -> Pointer | None:
        """Which version was activated last; `None` if that is not known."""
        folder = self.folder(spec)
        try:
            stamp = _stamp(folder / POINTER)
        except OSError:
            return None
        known = self._pointers.get(folder)
        if known is None or known[0] != stamp:
            known = self._pointers[folder] = (stamp, read_pointer(folder))
        return known[1]

    def folder(self, spec: BackendSpec) -> Path:
        """Where the versions of a backend are."""
        return self.root / spec.backend_id.recipe / spec.backend_id.variant

    def present(self, spec: BackendSpec) -> tuple[Bundle, ...]:
        """Every usable bundle of the backend, in whatever version; the legacy one last."""
        if not spec.pin.fetched:
            return ()
        found = (self._complete(spec, path) for path in self.folders(spec))
        return tuple(bundle for bundle in (*found, self._earlier(spec)) if bundle is not None)

    def folders(self, spec: BackendSpec) -> list[Path]:
        """What may be a version of the backend, by its place."""
        folder = self.folder(spec)
        if not spec.pin.fetched or not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if self.receipt(path) is not None)

    def legacy(self, spec: BackendSpec) -> tuple[Legacy, ...]:
        """What an earlier Lemonade installed, whether it can be used or not."""
        if spec.pin.source != "github":
            return ()
        return tuple(self._legacy_in(spec, folder) for folder in legacy_folders(self.folder(spec)))

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
            return self._status_of(selection, bundle, removable=removable)
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

    def _status_of(
        self, selection: Selection, bundle: Bundle, *, removable: bool
    ) -> BackendStatus:
        """The state of a backend that has something to start."""
        spec, wanted = selection.spec, selection.version
        version = self.version_of(bundle)
        action = f"lemonade backends install {spec.id}"
        state: State = "installed"
        message = ""
        same = not bundle.verified and f"{bundle.version}-{selection.made_for}" == wanted
        if bundle.removable and not same and not selection.satisfied_by(bundle.version):
            pointer = self.pointer(spec)
            chosen = pointer is not None and pointer.chosen and pointer.version == version
            state, message = "update_required", f"{version} is installed, {wanted} is needed."
            if chosen:
                state, message = "update_available", f"{version} was chosen instead of {wanted}."
                if self.find(selection, wanted) is not None:
                    action = f"lemonade backends use {spec.id}@{wanted}"
            elif selection.kind is PinKind.LATEST:
                state = "update_available"
                message = f"{version} is installed, {wanted} can be had."
        shown = action if message else ""
        if not bundle.verified:
            said = "It was installed by an earlier Lemonade and never verified."
            message = f"{message} {said}".strip()
        return BackendStatus(
            state, message, shown, version, removable and bundle.removable, usable=True
        )

    def _newest(self, selection: Selection) -> Bundle | None:
        found = [
            (receipt.installed_at, path.name, bundle)
            for path in self.folders(selection.spec)
            if (receipt := self.receipt(path)) is not None
            and receipt.made_for == selection.made_for
            and (bundle := self._complete(selection.spec, path)) is not None
        ]
        return max(found, key=lambda one: one[:2])[2] if found else None

    def _complete(self, spec: BackendSpec, path: Path) -> Bundle | None:
        return bundle_of(self.receipt(path), spec.backend_id, path, spec.bundle.argv)

    def _earlier(self, spec: BackendSpec) -> Bundle | None:
        """What an earlier Lemonade installed, if it can be started."""
        for legacy in self.legacy(spec):
            program = legacy.program
            if program is not None and program.exists():
                words = tuple(filled(word, program) for word in spec.bundle.argv)
                return Bundle(
                    spec.backend_id, legacy.version, legacy.folder, words, verified=False
                )
        return None

    def _legacy_in(self, spec: BackendSpec, folder: Path) -> Legacy:
        stamp = _stamp_or_nothing(folder / VERSION_FILE)
        known = self._legacy.get(folder)
        if known is None or known[0] != stamp or known[1].program is None:
            known = (stamp, read_legacy(folder, spec.pin.executable))
            self._legacy[folder] = known
        return known[1]

    def _versions_on_disk(self, spec: BackendSpec) -> list[str]:
        """Of all bundles with a receipt, whether their interpreter still exists or not."""
        receipts = [self.receipt(path) for path in self.folders(spec)]
        ours = [receipt.version for receipt in receipts if receipt is not None]
        return [*ours, *(legacy.version for legacy in self.legacy(spec))]

    def receipt(self, path: Path) -> Receipt | None:
        """The receipt of a version's folder; `None` if that is no version."""
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
    words = tuple(filled(word, program).replace("{runtime}", runtime) for word in argv)
    return Bundle(
        backend=backend, version=receipt.version, root=path, argv=words, libraries=libraries
    )


def interpreter(bundle: Path) -> Path:
    """The Python of a bundle's private environment."""
    return bundle / VENV / "bin" / "python"


def _fingerprint(program: str) -> tuple[str, tuple[int, ...]]:
    return (program, _stamp_or_nothing(Path(program)))


def _stamp_or_nothing(path: Path) -> tuple[int, ...]:
    try:
        return _stamp(path)
    except OSError:
        return ()


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when the file does, also where a copy keeps the time and the size."""
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)
