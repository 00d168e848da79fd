"""Versions of the tiny engine put onto the disk as an installation would, without installing."""

from __future__ import annotations

from pathlib import Path

from lemonade.catalog import BackendSpec
from lemonade.installer.activation import put_to_use, staging_for
from lemonade.installer.pointer import Pointer
from lemonade.installer.receipts import Asset, Contents, Receipt, read_receipt
from lemonade.planning import InstallPlan, plan_install
from tests.installer.releases import PROGRAM, backend_of
from tests.installer.setting import MACHINE, Setting, wanted


def plant(folder: Path, version: str, *, made_for: str = "", day: int = 1) -> Path:
    """A complete version in a backend's folder, installed on some day."""
    root = folder / version
    program(root / "tree" / "bin" / "tiny-server", version)
    Receipt(
        backend="tiny:engine",
        version=version,
        python="",
        packages=(),
        installed_at=f"2026-01-{day:02}T00:00:00+00:00",
        contents=Contents(
            executable="tree/bin/tiny-server",
            tag=version,
            assets=(Asset(f"tiny-{version}.tar.gz", "https://x/y", 5, "ab" * 32),),
        ),
        made_for=made_for,
    ).write(root)
    return root


def plant_legacy(folder: Path, version: str, *, at: str = "build/bin/tiny-server") -> Path:
    """What an earlier Lemonade would have put there."""
    program(folder / at, version)
    (folder / "share").mkdir(parents=True, exist_ok=True)
    (folder / "share" / "notes.txt").write_text("notes")
    (folder / "version.txt").write_text(f"{version}\n")
    return folder


def program(path: Path, version: str) -> Path:
    """A program that says its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.replace("{version}", version))
    path.chmod(0o755)
    return path


def pointing(setting: Setting, version: str, *history: str, chosen: bool = False) -> None:
    Pointer(version, "2026-01-01T00:00:00+00:00", chosen, history).write(setting.folder)


def active(setting: Setting, want: str = "1.0") -> str:
    bundle = setting.bundles.active(wanted(backend_of(want)))
    return bundle.version if bundle is not None else ""


def status(setting: Setting, want: str) -> tuple[str, str, str]:
    found = setting.bundles.status(wanted(backend_of(want)), MACHINE)
    return found.state, found.version, found.action


def planned(setting: Setting, spec: BackendSpec, *, pin: str = "builtin") -> InstallPlan:
    present = setting.bundles.present(spec)
    return plan_install(wanted(spec, pin), MACHINE, present, setting.root)


def staged(setting: Setting, version: str) -> Path:
    """A bundle in a staging folder, ready to be activated."""
    staging = staging_for(setting.folder / version)
    plant(setting.folder, version).rename(staging)
    return staging


def activated(setting: Setting, version: str, plan: InstallPlan | None = None) -> None:
    plan = plan or planned(setting, backend_of(version))
    staging = staged(setting, version)
    receipt = read_receipt(staging)
    assert receipt is not None
    put_to_use(receipt, staging, plan)
