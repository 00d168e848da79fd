"""What an installation consists of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog import LockedPackage
from lemonade.core.bundle import Bundle
from lemonade.core.errors import BadDescriptor, UnsupportedHere
from lemonade.hardware.facts import Cpu
from lemonade.planning import plan_install, select
from tests.unit.planning.examples import MACHINE, backend

ROOT = Path("/cache/bin")
WHEEL = backend("llamacpp-wheel")
ARM = replace(MACHINE, cpu=Cpu("Arm", "arm64", 4, 4, frozenset()))


def test_the_plan_of_the_embedded_engine() -> None:
    plan = plan_install(select(WHEEL, MACHINE), MACHINE, (), ROOT)
    assert plan.target == ROOT / "llamacpp" / "wheel" / WHEEL.pin.version
    assert len(plan.files) == 1
    assert "x86_64" in plan.files[0]
    assert plan.present is None
    line, empty = plan.requirements().split("\n")
    assert (line.split()[0], empty) == (f"xllamacpp=={WHEEL.pin.version}", "")
    assert line.count("--hash=sha256:") == 2


def test_files_are_those_of_the_processor() -> None:
    assert all("aarch64" in file for file in plan_install(select(WHEEL, ARM), ARM, (), ROOT).files)


def test_what_is_there_is_said() -> None:
    old = Bundle(WHEEL.backend_id, "1.0", ROOT, ("python",))
    same = replace(old, version=WHEEL.pin.version)
    assert plan_install(select(WHEEL, MACHINE), MACHINE, (old,), ROOT).present is None
    assert plan_install(select(WHEEL, MACHINE), MACHINE, (old, same), ROOT).present == same


def test_each_package_gets_its_own_digests() -> None:
    pin = WHEEL.pin.model_copy(
        update={
            "packages": ("Big.Engine==2", "small_part==1"),
            "sha256": {
                "big_engine-2-py3-none-any.whl": "a1",
                "small_part-1-py3-none-any.whl": "b2",
            },
        }
    )
    plan = plan_install(select(WHEEL.model_copy(update={"pin": pin}), MACHINE), MACHINE, (), ROOT)
    assert plan.requirements() == (
        "Big.Engine==2 --hash=sha256:a1\nsmall_part==1 --hash=sha256:b2\n"
    )


def test_nothing_is_installed_unverified() -> None:
    pin = WHEEL.pin.model_copy(update={"sha256": {"other-1-py3-none-any.whl": "a1"}})
    with pytest.raises(BadDescriptor, match="has no file of xllamacpp"):
        plan_install(select(WHEEL.model_copy(update={"pin": pin}), MACHINE), MACHINE, (), ROOT)


def test_what_cannot_be_installed() -> None:
    with pytest.raises(UnsupportedHere, match="not installed by Lemonade"):
        plan_install(select(backend("llamacpp-system"), MACHINE), MACHINE, (), ROOT)
    mac = replace(MACHINE, os="macos")
    with pytest.raises(UnsupportedHere, match="needs Linux"):
        plan_install(select(WHEEL, mac), mac, (), ROOT)


def test_packages_whose_names_begin_alike() -> None:
    spec = backend("ryzenai-llm-cpu")
    plan = plan_install(select(spec, MACHINE), MACHINE, (), ROOT)
    lines = {line.split()[0]: line.split()[1:] for line in plan.requirements().splitlines()}
    assert set(lines) == set(plan.packages)
    first, second = lines.values()
    assert len(first) == len(second) == len(plan.sha256) / 2
    assert not set(first) & set(second)


def test_builds_that_an_index_may_not_have_are_asked_for_first() -> None:
    common, special = LockedPackage("a", "1", ("c3",)), LockedPackage("z", "1+cpu", ("d4",))
    pin = WHEEL.pin.model_copy(
        update={"packages": (), "sha256": {}, "lock": "x.lock", "locked": (common, special)}
    )
    spec = WHEEL.model_copy(update={"pin": pin})
    plan = plan_install(select(spec, MACHINE), MACHINE, (), ROOT)
    assert plan.requirements() == "z==1+cpu --hash=sha256:d4\na==1 --hash=sha256:c3\n"


def test_nothing_to_install_is_a_mistake() -> None:
    spec = WHEEL.model_copy(update={"pin": WHEEL.pin.model_copy(update={"packages": ()})})
    with pytest.raises(BadDescriptor, match="names no packages"):
        plan_install(select(spec, MACHINE), MACHINE, (), ROOT)
