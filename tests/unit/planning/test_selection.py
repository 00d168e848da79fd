"""Which build of a backend is wanted, after the operator had a say."""

from __future__ import annotations

import pytest

from lemonade.catalog.backend import AssetSpec, BackendSpec, ChannelSpec, PinSpec, RunsOnSpec
from lemonade.core.errors import UnsupportedHere
from lemonade.hardware.facts import Machine
from lemonade.planning import PinKind, judge, on_channel, select
from tests.unit.planning.examples import MACHINE, backend
from tests.unit.planning.test_releases import gpu, on

BESIDE = ("active.json", "version.txt")
"""Files beside the folders of versions."""


def release(tag: str = "{version}", name: str = "x.tar.gz", **keys: object) -> BackendSpec:
    pin = PinSpec(
        source="github", repository="some/body", version="v1", executable="x", tag=tag,
        assets=(AssetSpec(name=name),), **keys,  # type: ignore[arg-type]
    )  # fmt: skip
    runs_on = (RunsOnSpec(gpu=("gfx*", "sm_*")), RunsOnSpec(cpu=("x86_64",)))
    return backend("llamacpp-cpu").model_copy(update={"pin": pin, "runs_on": runs_on})


def amd(family: str) -> Machine:
    return on(gpu(family))


def test_what_the_descriptor_pins() -> None:
    selection = select(release(), MACHINE)
    assert (selection.kind, selection.version, selection.made_for) == (PinKind.BUILTIN, "v1", "")


def test_a_folder_says_which_gpu_it_is_for() -> None:
    in_tag = select(release("{version}-{family}"), amd("gfx1201"))
    assert (in_tag.version, in_tag.made_for) == ("v1-gfx120X", "gfx120X")
    in_name = select(release(name="x-{gfx}.tar.gz"), amd("gfx1201"))
    assert (in_name.version, in_name.made_for) == ("v1-gfx1201", "gfx1201")
    without = select(release("{version}-{family}"), MACHINE)
    assert (without.version, without.made_for) == ("v1", "")


@pytest.mark.parametrize(
    ("tag", "version"),
    [("v2", "v2-gfx120X"), ("v2-gfx120X", "v2-gfx120X"), ("v2-gfx1201", "v2-gfx120X")],
)
def test_a_release_of_the_operators_choice(tag: str, version: str) -> None:
    spec = release("{version}-{family}", base_for={"gfx120X": "v0"})
    for selection in (
        select(spec, amd("gfx1201"), pin=tag),
        select(spec, amd("gfx1201"), version=tag),
        select(spec, amd("gfx1201"), pin="latest", latest=tag),
    ):
        assert selection.version == version
        assert selection.spec.pin.versions == ("v2",)


def test_the_default_by_name_keeps_what_is_pinned_for_a_gpu() -> None:
    spec = release("{version}-{family}", base_for={"gfx942": "v0"})
    assert select(spec, amd("gfx942"), pin="v1").version == "v0-gfx942"
    assert select(spec, amd("gfx942"), version="v1").version == "v1-gfx942", "named, it is meant"


def test_a_build_for_another_gpu() -> None:
    with pytest.raises(UnsupportedHere, match="build for gfx942") as caught:
        select(release("{version}-{family}"), amd("gfx1151"), pin="v2-gfx942")
    assert "'v2'" in caught.value.remedy


@pytest.mark.parametrize("tag", ["../v2", "a b", "-x", "a/b", ".", "x\n", "é", "x" * 151, *BESIDE])
def test_what_is_no_tag(tag: str) -> None:
    for given in ({"pin": tag}, {"version": tag}):
        with pytest.raises(UnsupportedHere, match="cannot be a version"):
            select(release(), MACHINE, **given)


def test_latest_is_not_guessed() -> None:
    selection = select(release(), MACHINE, pin="latest")
    assert (selection.kind, selection.version) == (PinKind.LATEST, "")
    assert selection.spec.pin.version == "v1"


def test_a_program_of_the_operators() -> None:
    selection = select(release(), MACHINE, pin="/opt/x")
    assert (selection.kind, str(selection.path)) == (PinKind.PATH, "/opt/x")
    assert select(release(), MACHINE, pin="/opt/x", version="v2").kind is PinKind.TAG


@pytest.mark.parametrize("name", ["llamacpp-wheel", "llamacpp-system"])
@pytest.mark.parametrize("tag", ["latest", "b1"])
def test_what_has_no_releases(name: str, tag: str) -> None:
    with pytest.raises(UnsupportedHere, match=f"cannot be had as '{tag}'"):
        select(backend(name), MACHINE, pin=tag)


def test_the_pinned_packages_by_name() -> None:
    spec = backend("llamacpp-wheel")
    selection = select(spec, MACHINE, version=spec.pin.version)
    assert (selection.version, selection.named) == (spec.pin.version, True)


def test_channels() -> None:
    nightly = release().pin.model_copy(update={"version": "n1", "repository": "some/nightly"})
    spec = release().model_copy(
        update={
            "channels": {
                "nightly": ChannelSpec(pin=nightly, runs_on=(RunsOnSpec(os=("macos",)),))
            },
            "channel_setting": "rocm_channel",
        }
    )
    assert select(spec, MACHINE, channel="stable").version == "v1"
    assert select(spec, MACHINE, channel="nightly").version == "n1"
    assert select(spec, MACHINE, channel="nightly", pin="n0").spec.pin.repository == "some/nightly"
    assert judge(on_channel(spec, "stable"), MACHINE).supported
    assert not judge(on_channel(spec, "nightly"), MACHINE).supported
