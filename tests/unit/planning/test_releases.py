"""Which file of a release is for which machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog.backend import BackendSpec, PinSpec
from lemonade.core.errors import UnsupportedHere
from lemonade.hardware.facts import Cpu, Gpu, Machine, Npu
from lemonade.planning import choose_backend, judge, plan_install, select
from lemonade.planning.releases import family_of
from tests.unit.planning.examples import MACHINE, backend, broken, recipe

ROOT = Path("/cache/bin")
WHISPER = "lemonade-sdk/whisper.cpp-rocm v1.8.4 whisper-v1.8.4"
SD = "leejet/stable-diffusion.cpp master-820-de298c2 sd-master-de298c2"
ARM = Cpu("Arm", "arm64", 4, 4, frozenset())
WINDOWS = replace(MACHINE, os="windows")
MAC = replace(MACHINE, os="macos", cpu=ARM)


def gpu(family: str, *, integrated: bool = False, problem: str = "") -> Gpu:
    vendor = "nvidia" if family.startswith("sm_") else "amd"
    return Gpu(
        vendor,
        "A GPU",
        family,
        integrated,
        cwsr_bytes=1,
        ctl_stack_bytes=1,
        problem=broken(problem),
    )  # type: ignore[arg-type]


def on(*gpus: Gpu, machine: Machine = MACHINE) -> Machine:
    return replace(machine, gpus=gpus)


def for_gpu(**pin: object) -> BackendSpec:
    spec = backend("llamacpp-rocm")
    document = spec.pin.model_dump() | {"assets": [{"name": "x-{family}.zip"}], **pin}
    return spec.model_copy(update={"pin": PinSpec.model_validate(document)})


@pytest.mark.parametrize(
    ("name", "machine", "path"),
    [
        ("cpu", WINDOWS, "ggml-org/llama.cpp b10375 llama-b10375-bin-win-cpu-x64.zip"),
        ("rocm", on(gpu("gfx1151", integrated=True), machine=WINDOWS),
         "lemonade-sdk/llama.cpp b10470 llama-b10470-bin-win-rocm-7.14-x64.zip"),
        ("cpu", MACHINE, "ggml-org/llama.cpp b10375 llama-b10375-bin-ubuntu-x64.tar.gz"),
        ("cpu", replace(MACHINE, cpu=ARM),
         "ggml-org/llama.cpp b10375 llama-b10375-bin-ubuntu-arm64.tar.gz"),
        ("vulkan", on(gpu("gfx1151", integrated=True)),
         "ggml-org/llama.cpp b10375 llama-b10375-bin-ubuntu-vulkan-x64.tar.gz"),
        ("rocm", on(gpu("gfx1201")),
         "lemonade-sdk/llama.cpp b10470 llama-b10470-bin-ubuntu-rocm-7.14-x64.tar.gz"),
        ("cuda", on(gpu("sm_86")),
         "lemonade-sdk/llama.cpp b10397 llama-b10397-ubuntu-cuda-sm_86-x64.tar.xz"),
        ("cuda", on(gpu("sm_121"), machine=replace(MACHINE, cpu=ARM)),
         "lemonade-sdk/llama.cpp b10397 llama-b10397-ubuntu-cuda-sm_121-arm64.tar.xz"),
        ("metal", MAC, "ggml-org/llama.cpp b10375 llama-b10375-bin-macos-arm64.tar.gz"),
    ],
)  # fmt: skip
def test_the_shipped_backends(name: str, machine: Machine, path: str) -> None:
    plan = plan_install(select(backend(f"llamacpp-{name}"), machine), machine, (), ROOT)
    assert plan.release is not None
    assert f"{plan.release.repository} {plan.release.tag} {plan.release.asset.name}" == path
    assert plan.target == ROOT / "llamacpp" / name / plan.version
    assert plan.files == (plan.release.asset.name,)


CARD = on(gpu("gfx1201"))
NPU_HERE = replace(MACHINE, npus=(Npu("An NPU", "XDNA2"),))


@pytest.mark.parametrize(
    ("backend_id", "machine", "path"),
    [
        ("flm:npu", NPU_HERE, "ROCm/FastFlowLM v1.0.2 fastflowlm_1.0.2_linux.tar.gz"),
        ("flm:npu", replace(NPU_HERE, os="windows"),
         "ROCm/FastFlowLM v1.0.2 fastflowlm_1.0.2_windows_amd64.zip"),
        ("whispercpp:npu", replace(NPU_HERE, os="windows"), f"{WHISPER}-windows-npu-x64.zip"),
        ("whispercpp:cpu", MACHINE, f"{WHISPER}-linux-cpu-x86_64.tar.gz"),
        ("whispercpp:vulkan", MACHINE, f"{WHISPER}-linux-vulkan-x86_64.tar.gz"),
        ("whispercpp:rocm", CARD, f"{WHISPER}-linux-rocm-gfx120X.tar.gz"),
        ("whispercpp:rocm", replace(CARD, os="windows"), f"{WHISPER}-windows-rocm-gfx120X.zip"),
        ("whispercpp:metal", MAC, f"{WHISPER}-darwin-metal-arm64.tar.gz"),
        ("sd-cpp:cpu", MACHINE, f"{SD}-bin-Linux-Ubuntu-24.04-x86_64.zip"),
        ("sd-cpp:vulkan", CARD, f"{SD}-bin-Linux-Ubuntu-24.04-x86_64-vulkan.zip"),
        ("sd-cpp:rocm", CARD, f"{SD}-bin-Linux-Ubuntu-24.04-x86_64-rocm-7.14.0.zip"),
        ("sd-cpp:rocm", replace(CARD, os="windows"), f"{SD}-bin-win-rocm-7.14.0-x64.zip"),
        ("sd-cpp:metal", MAC, f"{SD}-bin-Darwin-macOS-*-arm64.zip"),
        ("sd-cpp:cuda", on(gpu("sm_86")),
         "lemonade-sdk/stable-diffusion.cpp master-789-65745b4 "
         "sd-master-65745b4-ubuntu-cuda-sm_86-x64.tar.xz"),
        ("kokoro:cpu", MACHINE, "lemonade-sdk/Kokoros b17 kokoros-linux-x86_64.tar.gz"),
        ("kokoro:metal", MAC, "lemonade-sdk/Kokoros b17 kokoros-darwin-arm64-metal.tar.gz"),
    ],
)  # fmt: skip
def test_engines_that_are_installed_and_not_run(
    backend_id: str, machine: Machine, path: str
) -> None:
    plan = plan_install(select(backend(backend_id.replace(":", "-")), machine), machine, (), ROOT)
    assert plan.release is not None
    assert f"{plan.release.repository} {plan.release.tag} {plan.release.asset.name}" == path
    assert plan.release.executable.endswith(".exe") == (machine.os == "windows")


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("master-820-de298c2", "master-820-de298c2 master-de298c2"),
        ("v1.8.4", "1.8.4 v1.8.4"),
        ("b10375", "b10375 b10375"),
        ("vllm0.20.1", "vllm0.20.1 vllm0.20.1"),
        ("v1-2-3", "1-2-3 v1-3"),
    ],
)
def test_what_is_made_of_a_version(version: str, name: str) -> None:
    spec = for_gpu(version=version, assets=[{"name": "{number} {short}.zip"}])
    assert asset(on(gpu("gfx1151")), spec) == f"{name}.zip"


@pytest.mark.parametrize(
    ("gfx", "family"),
    [
        ("gfx1200", "gfx120X"), ("gfx1201", "gfx120X"), ("gfx1100", "gfx110X"),
        ("gfx1103", "gfx110X"), ("gfx1030", "gfx103X"), ("gfx1036", "gfx103X"),
        ("gfx1150", "gfx1150"), ("gfx1151", "gfx1151"), ("gfx90a", "gfx90a"),
        ("gfx1037", "gfx1037"),
    ],
)  # fmt: skip
def test_families(gfx: str, family: str) -> None:
    assert family_of(gfx) == family


def asset(machine: Machine, spec: BackendSpec | None = None) -> str:
    release = plan_install(select(spec or for_gpu(), machine), machine, (), ROOT).release
    assert release is not None
    return release.asset.name


def test_the_gpu_that_decides() -> None:
    both = on(gpu("gfx1151", integrated=True), gpu("gfx1201"))
    assert asset(both) == "x-gfx120X.zip", "a discrete one comes first"
    broken = on(gpu("gfx1151", integrated=True), gpu("gfx1201", problem="no access"))
    assert asset(broken) == "x-gfx1151.zip", "if it can be used"
    unfit = on(gpu("gfx1151", integrated=True), gpu("gfx906"))
    assert asset(unfit) == "x-gfx1151.zip", "and if the engine runs on it"
    cuda = backend("llamacpp-cuda")
    assert "sm_120" in asset(on(gpu("sm_86"), gpu("sm_120"), gpu("sm_90")), cuda)


def test_another_version_for_some_gpus() -> None:
    spec = for_gpu(
        version="b2", tag="{version}-{gfx}", base_for={"gfx942": "b1", "gfx110X": "b1.5"}
    )
    for family, version in (("gfx942", "b1"), ("gfx1100", "b1.5"), ("gfx1151", "b2")):
        plan = plan_install(select(spec, on(gpu(family))), on(gpu(family)), (), ROOT)
        assert plan.release is not None
        assert plan.version == plan.target.name == plan.release.tag == f"{version}-{family}"
    assert spec.pin.versions == ("b2", "b1", "b1.5")


def test_what_cannot_be_planned() -> None:
    with pytest.raises(UnsupportedHere, match="It needs a GPU of AMD; this machine has none"):
        plan_install(select(for_gpu(), MACHINE), MACHINE, (), ROOT)
    with pytest.raises(UnsupportedHere, match="depends on an AMD GPU, and this machine has none"):
        plan_install(select(for_gpu(), MACHINE), MACHINE, (), ROOT, force=True)
    with pytest.raises(UnsupportedHere, match="has no build for macos on arm64"):
        plan_install(select(backend("llamacpp-cpu"), MAC), MAC, (), ROOT, force=True)


def test_a_digest_is_that_of_the_file() -> None:
    spec = for_gpu(sha256={"x-gfx1151.zip": "a" * 64, "x-gfx120X.zip": "b" * 64})
    release = plan_install(select(spec, on(gpu("gfx1151"))), on(gpu("gfx1151")), (), ROOT).release
    assert release is not None
    assert release.asset.sha256 == "a" * 64
    assert release.path_of("f") == "lemonade-sdk/llama.cpp/releases/download/b10470/f"


@pytest.mark.parametrize(
    ("machine", "installed", "chosen"),
    [
        (MACHINE, "", "llamacpp:wheel"),
        (MACHINE, "llamacpp:cpu", "llamacpp:cpu"),
        (replace(MACHINE, cpu=Cpu("Old", "x86_64", 1, 1, frozenset())), "", "llamacpp:cpu"),
        (on(gpu("gfx1151", integrated=True)), "", "llamacpp:vulkan"),
        (on(gpu("sm_90")), "", "llamacpp:cuda"),
        (on(gpu("sm_60")), "", "llamacpp:vulkan"),
        (on(gpu("gfx1151", problem="no access")), "", "llamacpp:wheel"),
        (MAC, "", "llamacpp:metal"),
    ],
)
def test_which_one_is_taken(machine: Machine, installed: str, chosen: str) -> None:
    names = ("system", "wheel", "cpu", "vulkan", "rocm", "cuda", "metal")
    specs = [backend(f"llamacpp-{name}") for name in names]
    candidates = [(spec, judge(spec, machine), spec.id == installed) for spec in specs]
    assert choose_backend(recipe(), candidates, "", prefer_system=True).id == chosen


def test_what_is_only_taken_when_it_is_named_or_installed() -> None:
    bare = replace(MACHINE, cpu=Cpu("Old", "x86_64", 1, 1, frozenset()))
    specs = [backend(f"llamacpp-{name}") for name in ("vulkan", "cpu")]

    def chosen(machine: Machine, wanted: str = "", installed: str = "") -> str:
        candidates = [(spec, judge(spec, machine), spec.id == installed) for spec in specs]
        return choose_backend(recipe(), candidates, wanted, prefer_system=True).id

    assert chosen(bare) == "llamacpp:cpu"
    assert chosen(bare, wanted="vulkan") == "llamacpp:vulkan"
    assert chosen(bare, installed="llamacpp:vulkan") == "llamacpp:vulkan"
    assert chosen(on(gpu("gfx1151"))) == "llamacpp:vulkan"
    verdict = judge(specs[0], bare)
    assert (verdict.supported, verdict.automatic) == (True, False)
    with pytest.raises(UnsupportedHere, match="only taken once it is named or installed"):
        choose_backend(recipe(), [(specs[0], verdict, False)], "", prefer_system=True)
