"""Which backends run where, with the reason when they do not, and which one is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lemonade.catalog.backend import BackendSpec
from lemonade.core.errors import UnknownBackend, UnsupportedHere
from lemonade.hardware.facts import Cpu, Gpu, Machine, Npu
from lemonade.planning import choose_backend, judge, judge_for
from tests.unit.planning.examples import MACHINE, backend, broken, recipe

WHEEL = backend("llamacpp-wheel")
SYSTEM = backend("llamacpp-system")


def on_gpu(*families: str, variant: str = "rocm", preference: int = 20) -> BackendSpec:
    return WHEEL.model_copy(
        update={
            "id": f"llamacpp:{variant}",
            "preference": preference,
            "runs_on": (
                WHEEL.runs_on[0].model_copy(update={"gpu": families, "cpu_features": ()}),
            ),
        }
    )


def amd(family: str, problem: str = "") -> Machine:
    gpu = Gpu("amd", "A GPU", family, integrated=True, problem=broken(problem))
    return replace(MACHINE, gpus=(gpu,))


def features(*names: str) -> Machine:
    return replace(MACHINE, cpu=Cpu("Old CPU", "x86_64", 4, 8, frozenset(names)))


def test_it_runs() -> None:
    verdict = judge(WHEEL, MACHINE)
    assert (verdict.supported, verdict.reason, verdict.remedy) == (True, "", "")


def test_arm_needs_no_features_of_intel() -> None:
    arm = replace(MACHINE, cpu=Cpu("Arm", "arm64", 4, 4, frozenset({"asimd"})))
    assert judge(WHEEL, arm).supported


@pytest.mark.parametrize(
    ("spec", "machine", "reason"),
    [
        (
            WHEEL,
            features("avx2", "fma"),
            "It needs the CPU features avx2, f16c, fma; this CPU (Old CPU) lacks f16c.",
        ),
        (
            WHEEL,
            replace(MACHINE, cpu=Cpu("Loongson", "unknown", 1, 1, frozenset())),
            "It needs a processor of the kind x86_64 or arm64; this is unknown.",
        ),
        (WHEEL, replace(MACHINE, os="windows"), "It needs Linux; this is Windows."),
        (SYSTEM, replace(MACHINE, os="windows"), "It needs Linux or macOS; this is Windows."),
        (
            on_gpu("gfx1150", "gfx110X"),
            MACHINE,
            "It needs a GPU of gfx1150 or gfx110X; this machine has none.",
        ),
        (
            on_gpu("gfx*", "sm_*"),
            MACHINE,
            "It needs a GPU of AMD or NVIDIA; this machine has none.",
        ),
        (
            on_gpu("sm_75", "sm_80", "sm_86", "sm_89"),
            MACHINE,
            "It needs a GPU of NVIDIA; this machine has none.",
        ),
        (
            on_gpu("gfx1150"),
            amd("gfx1030"),
            "It needs a GPU of gfx1150; this machine has A GPU (gfx1030).",
        ),
        (
            on_gpu("gfx1150"),
            amd("gfx1150", "/dev/kfd is missing."),
            "It needs a GPU of gfx1150; there is A GPU, but: /dev/kfd is missing.",
        ),
    ],
)
def test_reasons_have_evidence(spec: BackendSpec, machine: Machine, reason: str) -> None:
    verdict = judge(spec, machine)
    assert (verdict.supported, verdict.reason) == (False, reason)
    assert verdict.remedy


def test_npus() -> None:
    row = WHEEL.runs_on[0].model_copy(update={"npu": ("XDNA2",), "cpu_features": ()})
    spec = WHEEL.model_copy(update={"runs_on": (row,)})
    assert judge(spec, MACHINE).reason == "It needs an NPU of XDNA2; this machine has none."
    assert judge(spec, replace(MACHINE, npus=(Npu("an NPU", "XDNA2"),))).supported
    without = Npu("an NPU", "XDNA2", problem=broken("The driver is not loaded."))
    assert judge(spec, replace(MACHINE, npus=(without,))).reason.endswith(
        "but: The driver is not loaded."
    )


@pytest.mark.parametrize(
    ("family", "runs"), [("gfx1100", True), ("gfx1103", True), ("gfx1150", False), ("", False)]
)
def test_a_family_with_a_wildcard(family: str, *, runs: bool) -> None:
    assert judge(on_gpu("gfx110X"), amd(family)).supported is runs


def choose(machine: Machine, installed: str = "", wanted: str = "", **more: bool) -> str:
    specs = (SYSTEM, on_gpu("gfx1151"), WHEEL)
    candidates = [(spec, judge(spec, machine), spec.id in installed.split()) for spec in specs]
    chosen = choose_backend(
        recipe(), candidates, wanted, prefer_system=more.get("prefer_system", True)
    )
    return chosen.id


def test_without_an_accelerator_it_is_the_embedded_engine() -> None:
    assert choose(MACHINE) == "llamacpp:wheel"
    assert choose(MACHINE, wanted="auto") == "llamacpp:wheel"


def test_a_program_on_path_comes_first_if_it_is_preferred() -> None:
    assert choose(MACHINE, "llamacpp:system") == "llamacpp:system"
    assert choose(MACHINE, "llamacpp:system", prefer_system=False) == "llamacpp:wheel"


def test_an_accelerator_comes_before_the_cpu() -> None:
    assert choose(amd("gfx1151")) == "llamacpp:rocm"


def test_what_is_installed_comes_before_what_is_not() -> None:
    assert choose(amd("gfx1151"), "llamacpp:wheel") == "llamacpp:wheel"
    assert choose(amd("gfx1151"), "llamacpp:wheel llamacpp:rocm") == "llamacpp:rocm"


def test_a_named_backend_is_taken_or_refused() -> None:
    assert choose(MACHINE, wanted="system") == "llamacpp:system"
    assert choose(amd("gfx1151"), wanted="llamacpp:wheel") == "llamacpp:wheel"
    with pytest.raises(UnsupportedHere, match="GPU of gfx1151"):
        choose(MACHINE, wanted="rocm")
    with pytest.raises(UnknownBackend) as caught:
        choose(MACHINE, wanted="vulcan")
    assert "system, rocm, wheel" in caught.value.remedy


def test_none_runs_here() -> None:
    with pytest.raises(UnsupportedHere) as caught:
        choose(features("sse2"))
    reasons = caught.value.facts["reasons"]
    assert reasons == [
        "llamacpp:system: llama-server is not on this machine.",
        "llamacpp:rocm: It needs a GPU of gfx1151; this machine has none.",
        "llamacpp:wheel: It needs the CPU features avx2, f16c, fma; this CPU (Old CPU) "
        "lacks avx2, f16c, fma.",
    ]
    with pytest.raises(UnsupportedHere, match="prefer_system is off"):
        choose(features("sse2"), "llamacpp:system", prefer_system=False)


@pytest.mark.parametrize(
    ("checkpoint", "runs"),
    [
        ("amd/Qwen2-7B-onnx-ryzenai-npu", False),
        ("amd/Qwen3-4B-awq-quant-onnx-ryzenai-1.7-HYBRID", False),
        ("me/mine-npu:int4", False),
        ("me/mine:int4-npu", False),
        ("amd/Qwen2.5-0.5B-Instruct-quantized_int4-float16-cpu-onnx", True),
        ("/models/npu/mine", True),
        ("", True),
    ],
)
def test_what_was_made_for_other_devices(checkpoint: str, *, runs: bool) -> None:
    spec = backend("ryzenai-llm-cpu")
    verdict = judge_for(spec, MACHINE, checkpoint)
    assert verdict.supported is runs
    assert runs or "made for other devices" in verdict.reason
    elsewhere = judge_for(spec, replace(MACHINE, os="windows"), checkpoint)
    assert elsewhere.reason == "It needs Linux; this is Windows."
    assert judge_for(WHEEL, MACHINE, checkpoint).supported
