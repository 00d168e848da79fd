"""Which ROCm a build needs on which machine, and when the system's own is good enough."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec, Catalog, shipped
from lemonade.core.errors import UnsupportedHere
from lemonade.core.ids import BackendId
from lemonade.hardware import Instruments, Machine, RocmRoot, detect
from lemonade.planning import on_channel, plan_install, plan_runtime, select
from tests.unit.hardware import trees

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

Tree = Callable[[Path], Path]
CATALOG = Catalog.load((shipped(),))
SPEC = CATALOG.backend(BackendId("llamacpp", "rocm"))


def with_rocm(root: Path, place: str, version: str, file: str = ".info/version") -> Path:
    trees.write(root, f"{place}/lib/libamdhip64.so")
    if version:
        trees.write(root, f"{place}/{file}", f"{version}\n")
    return root


def look(root: Path, rocm_path: str = "") -> Machine:
    return detect(root, Instruments(may_open=lambda _: True, rocm_path=rocm_path))


@pytest.mark.parametrize(
    ("tree", "folder", "variant"),
    [
        (trees.strix_halo, "gfx1151-7.14.0", "gfx1151"),
        (trees.instinct, "gfx942-7.14.0", "gfx94X-dcgpu"),
        (trees.rdna4, "gfx1201-7.14.0", "gfx120X-all"),
    ],
)
@pytest.mark.parametrize("backend", ["llamacpp", "sd-cpp"])
def test_the_archive_follows_from_the_gpu(
    tmp_path: Path, tree: Tree, folder: str, variant: str, backend: str
) -> None:
    spec = CATALOG.backend(BackendId(backend, "rocm"))
    plan = plan_runtime(spec, look(tree(tmp_path)))
    assert plan is not None
    assert (plan.name, plan.folder, plan.system) == ("rocm", folder, "")
    name = f"therock-dist-linux-{variant}-7.14.0.tar.gz"
    assert plan.file == name
    assert plan.url({}) == f"https://repo.amd.com/rocm/tarball-multi-arch/{name}"
    elsewhere = {"LEMONADE_ROCM_URL": "http://127.0.0.1:9/rocm/"}
    assert plan.url(elsewhere) == f"http://127.0.0.1:9/rocm/tarball-multi-arch/{name}"


@pytest.mark.parametrize("tree", [trees.strix_halo, trees.instinct, trees.rdna4])
@pytest.mark.parametrize(
    ("version", "file", "fits"),
    [
        ("7.14.0", ".info/version", True),
        ("7.14.0-42", ".info/version", True),
        ("7.14", "share/rocm/version", True),
        ("7.14.0.1", "version", True),
        ("7.14.1", ".info/version", False),
        ("7", ".info/version", False),
        ("6.4.1-83", ".info/version", False),
        ("unknown", ".info/version", False),
        ("", "", False),
    ],
)
def test_what_packages_installed_must_be_the_same(
    tmp_path: Path, tree: Tree, version: str, file: str, *, fits: bool
) -> None:
    root = with_rocm(tree(tmp_path), "opt/rocm", version, file)
    plan = plan_runtime(SPEC, look(root))
    assert plan is not None
    assert plan.system == (str(root / "opt/rocm") if fits else "")


@pytest.mark.parametrize(
    ("version", "fits"),
    [("7.14.3", True), ("7.14", True), ("", True), ("7.13.9", False), ("6.4", False)],
)
def test_what_an_operator_names_is_believed(tmp_path: Path, version: str, *, fits: bool) -> None:
    root = with_rocm(trees.strix_halo(tmp_path), "srv/rocm", version)
    plan = plan_runtime(SPEC, look(root, "/srv/rocm"))
    assert plan is not None
    assert plan.system == (str(root / "srv/rocm") if fits else "")


def test_the_named_one_comes_first(tmp_path: Path) -> None:
    root = with_rocm(trees.strix_halo(tmp_path), "opt/rocm", "7.14.0")
    with_rocm(root, "srv/rocm", "6.4.1")
    machine = look(root, "/srv/rocm")
    assert [(Path(one.path).parts[-2], one.named) for one in machine.rocm] == [
        ("srv", True), ("opt", False)
    ]  # fmt: skip
    plan = plan_runtime(SPEC, machine)
    assert plan is not None
    assert plan.system == str(root / "opt/rocm"), "the one that fits"
    assert [one.named for one in look(root, "/opt/rocm").rocm] == [True]


def test_a_folder_without_the_library_is_none(tmp_path: Path) -> None:
    root = trees.strix_halo(tmp_path)
    trees.write(root, "opt/rocm/.info/version", "7.14.0")
    assert look(root, "/nowhere").rocm == look(root, "relative").rocm == ()


def test_nothing_is_needed_elsewhere(tmp_path: Path) -> None:
    machine = look(trees.strix_halo(tmp_path))
    assert plan_runtime(on_channel(SPEC, "nightly"), machine) is None, "it brings its own"
    assert plan_runtime(SPEC, replace(machine, gpus=())) is None
    assert plan_runtime(SPEC, replace(machine, os="windows")) is None
    wheel = CATALOG.backend(BackendId("llamacpp", "wheel"))
    assert plan_runtime(wheel, machine) is None


def test_it_is_part_of_the_plan(tmp_path: Path) -> None:
    machine = look(trees.rdna4(tmp_path))
    plan = plan_install(select(SPEC, machine), machine, (), tmp_path)
    assert plan.steps[:3] == (
        "find release",
        "fetch therock-dist-linux-gfx120X-all-7.14.0.tar.gz",
        "unpack therock-dist-linux-gfx120X-all-7.14.0.tar.gz",
    )


def test_packages_are_refused_where_they_would_be_needed(tmp_path: Path) -> None:
    machine = look(trees.rdna4(tmp_path))
    wheel = replace(select(SPEC, machine), runtime_method="wheel")
    with pytest.raises(UnsupportedHere, match="this version cannot do that") as caught:
        plan_install(wheel, machine, (), tmp_path)
    assert "rocm_install_method=auto" in caught.value.remedy
    there = replace(machine, rocm=(RocmRoot("/opt/rocm", "7.14.0"),))
    assert plan_install(wheel, there, (), tmp_path).runtime is not None
    for method in ("", "auto", "tarball"):
        selection = replace(select(SPEC, machine), runtime_method=method)
        assert plan_install(selection, machine, (), tmp_path).runtime is not None


def test_every_gpu_it_runs_on_has_an_archive() -> None:
    """A family of several GPUs has one build for all of them."""
    spec: BackendSpec = SPEC
    assert spec.runtime is not None
    several = [name for row in spec.runs_on for name in row.gpu if name.endswith("X")]
    assert several
    for family in several:
        assert spec.runtime.variants[family].startswith(family)
