"""What is built carries everything the checkout has, and works from where it is unpacked."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lemonade import __version__
from tests.house.tree import CHECKOUT

pytestmark = pytest.mark.slow

REGISTRIES = ("backends", "recipes", "models", "server_models.json", "vllm_model_config.json")

LOOK_AROUND = """
import json, sys
sys.path.insert(0, sys.argv[1])
import lemonade
from lemonade.catalog import Catalog, shipped
catalog = Catalog.load([shipped()])
print(json.dumps({
    "package": lemonade.__file__,
    "shipped": str(shipped()),
    "backends": sorted(map(str, catalog.backends)),
    "recipes": sorted(catalog.recipes),
    "models": len(catalog.builtin_models()),
}))
"""


def registry_files() -> dict[str, bytes]:
    """Path below the checkout to content, of everything that must be carried along."""
    found = {}
    for name in REGISTRIES:
        root = CHECKOUT / name
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[path.relative_to(CHECKOUT).as_posix()] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_registries_are_there_to_be_carried() -> None:
    files = registry_files()
    assert {name.partition("/")[0] for name in files} == set(REGISTRIES)
    assert any(".overlay/" in name for name in files)
    assert any(name.endswith(".gguf") for name in files)


def test_the_wheel_carries_the_registries(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"lemonade-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name, content in registry_files().items():
            assert archive.read(f"lemonade/_shipped/{name}") == content, name
    assert "lemonade/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strangers = {name.partition("/")[0] for name in names} - {
        "lemonade",
        f"lemonade-{__version__}.dist-info",
    }
    assert not strangers, "these would land beside the package in site-packages"


def test_the_source_distribution_carries_the_registries(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    root = f"lemonade-{__version__}"
    with tarfile.open(sdist) as archive:
        for name, content in registry_files().items():
            member = archive.extractfile(f"{root}/{name}")
            assert member is not None, name
            assert member.read() == content, name
        names = set(archive.getnames())
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        assert f"{root}/{name}" in names


def test_an_unpacked_wheel_finds_its_own_registries(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    result = subprocess.run(
        [sys.executable, "-I", "-c", LOOK_AROUND, str(site)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert seen["package"] == str(site / "lemonade" / "__init__.py")
    assert seen["shipped"] == str(site / "lemonade" / "_shipped")
    assert len(seen["backends"]) == len(list((CHECKOUT / "backends").glob("*.toml")))
    assert len(seen["recipes"]) == len(list((CHECKOUT / "recipes").glob("*.toml")))
    assert seen["models"] == len(json.loads((CHECKOUT / "server_models.json").read_text()))


def test_the_commands_are_declared(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        points = archive.read(f"lemonade-{__version__}.dist-info/entry_points.txt").decode()
    assert "lemonade = lemonade.cli" in points
    assert "lemond = lemonade.cli" in points
