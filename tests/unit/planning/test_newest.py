"""Which of a publisher's releases is the newest that this machine can use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lemonade.catalog import BackendSpec
from lemonade.hardware import Gpu
from lemonade.planning import select
from lemonade.planning.elsewhere import with_gpu
from lemonade.planning.releases import Release, is_newer, newest_version
from tests.installer.releases import backend_of
from tests.installer.setting import MACHINE

STRIX = with_gpu(MACHINE, "gfx1151")


def of(tag: str, asset: str, *, parts: bool = False) -> BackendSpec:
    spec = backend_of("1.0", asset=asset, parts=parts)
    runs_on = tuple(row.model_copy(update={"gpu": ("gfx*",)}) for row in spec.runs_on)
    pin = spec.pin.model_copy(update={"tag": tag})
    return spec.model_copy(update={"pin": pin, "runs_on": runs_on})


def test_the_first_that_has_our_file() -> None:
    spec = of("{version}", "tiny-{version}-{gfx}.tar.gz")
    listed = (
        Release("b12", ()),
        Release("b11", ("tiny-b11-gfx942.tar.gz", "other-b11-gfx1151.tar.gz")),
        Release("b10", ("notes.txt", "tiny-b10-gfx1151.tar.gz")),
        Release("b9", ("tiny-b9-gfx1151.tar.gz",)),
    )
    assert newest_version(spec, STRIX, listed) == "b10"
    assert newest_version(spec, with_gpu(MACHINE, "gfx942"), listed) == "b11"
    assert newest_version(spec, MACHINE, listed) == ""


def test_tags_of_other_gpus_are_not_ours() -> None:
    spec = of("{version}-{family}", "{version}-{family}-x64.tar.gz", parts=True)
    listed = (
        Release("v2-rocm7-gfx120X", ("v2-rocm7-gfx120X-x64.tar.gz",)),
        Release("v2-rocm7-gfx1151", ("v2-rocm7-gfx1151-x64.tar.partcount",)),
        Release("v1-rocm7-gfx1151", ("v1-rocm7-gfx1151-x64.tar.gz",)),
    )
    listed = tuple(
        replace(one, files=tuple(f.replace(".tar.partcount", ".partcount") for f in one.files))
        for one in listed
    )
    assert newest_version(spec, STRIX, listed) == "v2-rocm7"
    assert newest_version(spec, MACHINE, listed) == ""
    assert select(spec, STRIX, pin="latest", latest="v2-rocm7").version == "v2-rocm7-gfx1151"


def test_a_star_in_a_name_and_a_tag_that_cannot_be() -> None:
    spec = backend_of("1.0", asset="tiny-[x]-{version}-*.zip")
    listed = (Release("../2", ("tiny-[x]-../2-a.zip",)), Release("1", ("tiny-[x]-1-24.04.zip",)))
    assert newest_version(spec, MACHINE, listed) == "1"


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ("b10400", "b9999", True),
        ("b10375", "b10375", False),
        ("v1.10", "v1.9.5", True),
        ("v1.9", "v1.9.1", False),
        ("master-820-de298c2", "master-789-65745b4", True),
        ("vllm0.20.1-rocm7.12.0-gfx1151", "vllm0.19.1-rocm7.13.0-gfx1151", True),
    ],
)
def test_numbers_are_compared_from_the_left(one: str, other: str, newer: bool) -> None:
    assert is_newer(one, other) is newer


def test_who_has_a_newer_one_is_satisfied() -> None:
    spec = backend_of("1.0")
    latest = select(spec, MACHINE, pin="latest", latest="2.0")
    assert [latest.satisfied_by(one) for one in ("1.9", "2.0", "2.1")] == [False, True, True]
    assert select(spec, MACHINE, pin="latest").satisfied_by("0.1"), "nobody has looked"
    pinned = select(spec, MACHINE, pin="1.5")
    assert [pinned.satisfied_by(one) for one in ("1.5", "2.0")] == [True, False]


def test_a_gpu_that_is_here_is_taken_as_it_is() -> None:
    mine = Gpu("amd", "mine", "gfx1151", integrated=True)
    here = replace(MACHINE, gpus=(Gpu("nvidia", "other", "sm_86", integrated=False), mine))
    assert with_gpu(here, "gfx1151").gpus == (mine,)
