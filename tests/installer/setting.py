"""What most tests of the installer need at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.events import Event
from lemonade.hardware import Cpu, Machine
from lemonade.installer import Bundles, Installer
from lemonade.planning import InstallPlan, Selection, plan_install, select

MACHINE = Machine(
    os="linux",
    os_version="Linux",
    kernel="6.0",
    cpu=Cpu("a CPU", "x86_64", 1, 1, frozenset()),
    memory_bytes=1 << 33,
)


def wanted(spec: BackendSpec, pin: str = "builtin", machine: Machine = MACHINE) -> Selection:
    """What is wanted of a backend, as `Bundles` is asked."""
    return select(spec, machine, pin=pin)


@dataclass
class Setting:
    """A directory of bundles, what pip may know, and what was published."""

    root: Path
    environ: dict[str, str]
    bus: Bus
    events: list[Event]
    bundles: Bundles

    @property
    def folder(self) -> Path:
        """Where the versions of `tiny:engine` are."""
        return self.root / "tiny" / "engine"

    def installer(self) -> Installer:
        return Installer(self.bundles, self.bus, self.environ)

    def plan(self, spec: BackendSpec) -> InstallPlan:
        return plan_install(select(spec, MACHINE), MACHINE, self.bundles.present(spec), self.root)

    def names(self) -> list[str]:
        """What lies in the backend's folder, the lock and the pointer aside."""
        if not self.folder.is_dir():
            return []
        aside = (".lock", "active.json")
        return sorted(path.name for path in self.folder.iterdir() if path.name not in aside)


def mentioning(path: Path) -> list[str]:
    """Living processes whose command line names something under `path`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(path).encode() in line:
                found.append(f"{entry.name}: {line!r}")
    return found
