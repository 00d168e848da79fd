"""What counts as installed: programs on PATH, configured paths, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.errors import SetupFailed, UnsupportedHere
from lemonade.hardware import Cpu, Machine
from lemonade.installer import Bundles, Installer
from tests.installer.setting import MACHINE, wanted

SYSTEM = BackendSpec.model_validate(
    {
        "schema": 1,
        "id": "tiny:system",
        "title": "Tiny engine of this machine",
        "preference": 10,
        "devices": ["cpu"],
        "pin": {"source": "system", "executable": "tiny-server"},
        "runs_on": [{"os": ["linux"]}],
        "bundle": {"argv": ["{executable}", "serve"], "smoke": ["--version"]},
    }
)
PATH_ONLY = SYSTEM.model_copy(
    update={"id": "tiny:mine", "pin": SYSTEM.pin.model_copy(update={"source": "path"})}
)
WHEEL = BackendSpec.model_validate(
    {
        "schema": 1,
        "id": "tiny:engine",
        "title": "Tiny engine",
        "preference": 10,
        "devices": ["cpu"],
        "pin": {
            "source": "pypi",
            "version": "1.0",
            "packages": ["tinyengine==1.0"],
            "sha256": {"tinyengine-1.0-py3-none-any.whl": "0" * 64},
            "executable": "tiny-server",
        },
        "runs_on": [{"os": ["linux"]}],
        "bundle": {"argv": ["{python}", "-m", "tinyengine"]},
    }
)


def script(path: Path, *, says: str = "version: 7.3 (build 1)", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(mode)
    return path


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(tmp_path / "bin", {"PATH": str(tmp_path / "path")})


def test_a_program_on_path(bundles: Bundles, tmp_path: Path) -> None:
    program = script(tmp_path / "path" / "tiny-server")
    bundle = bundles.active(wanted(SYSTEM))
    assert bundle is not None
    assert bundle.argv == (str(program), "serve")
    assert (bundle.version, bundle.root, bundle.removable) == ("system", program.parent, False)
    status = bundles.status(wanted(SYSTEM), MACHINE)
    assert (status.state, status.message, status.can_uninstall) == ("installed", "", False)


def test_no_program_on_path(bundles: Bundles) -> None:
    assert bundles.active(wanted(SYSTEM)) is None
    status = bundles.status(wanted(SYSTEM), MACHINE)
    assert (status.state, status.message) == ("unsupported", "tiny-server is not on PATH.")


async def test_a_program_is_asked_for_its_version_once(bundles: Bundles, tmp_path: Path) -> None:
    program = script(tmp_path / "path" / "tiny-server")
    bundle = bundles.active(wanted(SYSTEM))
    assert bundle is not None
    async with Installer(bundles, Bus(), {}) as installer:
        assert await installer.ask_version(SYSTEM, bundle) == "7.3"
    assert bundles.status(wanted(SYSTEM), MACHINE).version == "7.3"
    script(program, says="another file, and another size")
    assert bundles.status(wanted(SYSTEM), MACHINE).version == "system"


async def test_a_program_that_does_not_start(bundles: Bundles, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    program = tmp_path / "path" / "tiny-server"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    bundle = bundles.active(wanted(SYSTEM))
    assert bundle is not None
    async with Installer(bundles, Bus(), {}) as installer:
        with pytest.raises(SetupFailed, match="cannot be started"):
            await installer.ask_version(SYSTEM, bundle)


@pytest.mark.parametrize("place", ["tiny-server", "bin/tiny-server"])
@pytest.mark.parametrize("spec", [SYSTEM, PATH_ONLY, WHEEL], ids=lambda spec: spec.id)
def test_a_configured_folder(
    bundles: Bundles, tmp_path: Path, spec: BackendSpec, place: str
) -> None:
    program = script(tmp_path / "mine" / place)
    bundle = bundles.active(wanted(spec, str(tmp_path / "mine")))
    assert bundle is not None
    assert bundle.argv[0] == str(program)
    assert not bundle.removable
    assert bundles.status(wanted(spec, str(tmp_path / "mine")), MACHINE).state == "installed"


def test_a_configured_file_replaces_the_private_environment(
    bundles: Bundles, tmp_path: Path
) -> None:
    program = script(tmp_path / "another name")
    bundle = bundles.active(wanted(WHEEL, str(program)))
    assert bundle is not None
    assert (bundle.argv, bundle.version) == ((str(program),), "custom")


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("{tmp}/missing", "there is no such program"),
        ("{tmp}", "there is no such program"),
        ("{tmp}/plain", "may not be executed"),
        ("{tmp}/" + 300 * "x", "cannot be looked at"),
    ],
)
def test_pins_that_cannot_be_used(bundles: Bundles, tmp_path: Path, pin: str, words: str) -> None:
    script(tmp_path / "plain", mode=0o644)
    pin = pin.replace("{tmp}", str(tmp_path))
    with pytest.raises(UnsupportedHere, match=words):
        bundles.active(wanted(WHEEL, pin))
    status = bundles.status(wanted(WHEEL, pin), MACHINE)
    assert status.state == "unsupported"
    assert words in status.message


@pytest.mark.parametrize("pin", ["~nobody-of-that-name/x", "tiny-server", "latest"])
def test_packages_are_had_as_pinned_only(pin: str) -> None:
    with pytest.raises(UnsupportedHere, match=r"only the pinned version 1\.0"):
        wanted(WHEEL, pin)


def test_a_backend_without_a_path(bundles: Bundles) -> None:
    assert bundles.active(wanted(PATH_ONLY)) is None
    assert bundles.status(wanted(PATH_ONLY), MACHINE).message == "No path to it is configured."


def test_states_of_what_is_not_there(bundles: Bundles) -> None:
    status = bundles.status(wanted(WHEEL), MACHINE)
    assert (status.state, status.version) == ("installable", "1.0")
    assert status.action == "lemonade backends install tiny:engine"
    elsewhere = Machine("macos", "macOS", "", Cpu("", "arm64", 1, 1, frozenset()), 0)
    status = bundles.status(wanted(WHEEL, machine=elsewhere), elsewhere)
    assert (status.state, status.message) == ("unsupported", "It needs Linux; this is macOS.")


def test_folders_without_a_receipt_do_not_count(bundles: Bundles) -> None:
    folder = bundles.root / "tiny" / "engine"
    script(folder / "1.0" / "venv" / "bin" / "python")
    assert bundles.active(wanted(WHEEL)) is None
    assert bundles.present(WHEEL) == ()
    (folder / "1.0" / "receipt.json").write_text('{"schema": 99}')
    assert bundles.active(wanted(WHEEL)) is None
    (folder / "1.0" / "receipt.json").write_text("not JSON")
    assert bundles.active(wanted(WHEEL)) is None
    assert bundles.status(wanted(WHEEL), MACHINE).state == "installable"


def test_a_receipt_that_was_replaced_is_read_anew(bundles: Bundles) -> None:
    python = bundles.root / "tiny" / "engine" / "1.0" / "venv" / "bin" / "python"
    script(python)
    receipt = bundles.root / "tiny" / "engine" / "1.0" / "receipt.json"
    text = (
        '{"schema": 1, "backend": "tiny:engine", "version": "1.0", "python": "3", '
        '"packages": [], "installed_at": ""}'
    )
    receipt.write_text(text)
    assert bundles.active(wanted(WHEEL)) is not None
    stat = receipt.stat()
    other = receipt.with_name("other")
    other.write_text(text.replace("tiny:engine", "tiny:maltes"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(receipt)
    assert bundles.active(wanted(WHEEL)) is None
