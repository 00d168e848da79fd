"""What says that a GPU has faulted or was reset, in the words of drivers and engines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, sources
from lemonade.core.process import Endpoint, KnownProblem, ProbeSpec, ProcessSpec
from lemonade.supervisor.diagnosis import diagnose, verdict
from lemonade.supervisor.kernel import Testimony as Told
from lemonade.supervisor.kernel import Witness

CATALOG = Catalog.load(sources({}, Path("/nonexistent")))
RECIPES = ["llamacpp", "vllm"]


def problems(recipe: str) -> list[KnownProblem]:
    return [
        KnownProblem(one.pattern, one.cause, one.fix, one.signal, one.severe, one.kernel, one.name)
        for one in CATALOG.recipe(recipe).problem
    ]


RESETS = [
    "amdgpu 0000:c5:00.0: amdgpu: GPU reset begin!",
    "amdgpu 0000:03:00.0: amdgpu: GPU reset(2) succeeded!",
    "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring gfx_0.0.0 timeout, signaled seq=1",
    "amdgpu 0000:03:00.0: [drm] *ERROR* ring comp_1.0.0 timeout",
    "amdgpu 0000:03:00.0: amdgpu: VRAM is lost due to GPU reset!",
    "i915 0000:00:02.0: [drm] GPU HANG: ecode 12:1:85dffffb",
    "xe 0000:03:00.0: [drm] GT0: Engine reset: engine_class=ccs",
    "xe 0000:03:00.0: [drm] device wedged, needs recovery",
    "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off the bus.",
    "NVRM: Xid (PCI:0000:01:00): 48, pid=1, An uncorrectable double bit error",
    "NVRM: GPU at PCI:0000:01:00: GPU has fallen off the bus.",
]


@pytest.mark.parametrize("line", RESETS)
def test_the_witness_keeps_what_recipes_look_for(tmp_path: Path, line: str) -> None:
    witness = Witness(1, log=tmp_path / "kmsg", proc=tmp_path)
    at = int((time.clock_gettime(time.CLOCK_MONOTONIC) + 1.0) * 1e6)
    others = "amdgpu: default mode is set"
    (tmp_path / "kmsg").write_text(f"6,1,{at},-;{others}\n6,2,{at},-;{line}\n")
    assert witness.testify((4321,), killed=False).lines == (line,)


def test_memory_comes_before_strangers_and_those_before_words() -> None:
    spec = ProcessSpec(
        name="x", argv=("/x",), env={}, executable_root=Path("/"),
        endpoint=Endpoint("127.0.0.1", 7), probe=ProbeSpec("/"),
        known_problems=(KnownProblem("words", "Words.", "Do."),),
    )  # fmt: skip
    out = Told(out_of_memory=True)
    said, who = ("words",), "another program (y, pid 1)"
    found = [
        verdict(spec, said, 9, out, who),
        verdict(spec, said, 9, Told(), who),
        verdict(spec, said, 9, Told(), ""),
        verdict(spec, (), 9, Told(), ""),
    ]
    names = [one and (one.name or one.cause) for one in found]
    assert names == ["out-of-memory", "foreign-server", "Words.", None]
    assert found[1] is not None
    assert found[1].cause.startswith("Another program (y, pid 1) listens on the port 7")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("line", RESETS)
def test_a_reset_that_the_kernel_tells_of_is_severe(recipe: str, line: str) -> None:
    found = diagnose(problems(recipe), ("bye",), None, ("usb 1-1: new device", line))
    assert found is not None
    assert (found.name, found.severe) == ("device-reset", True)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "line",
    [
        # What the driver says when a process that used the GPU was killed, and of one process.
        "NVRM: Xid (PCI:0000:01:00): 45, pid=4321, name=engine, Ch 00000008",
        "NVRM: Xid (PCI:0000:01:00): 43, pid=4321, name=engine, Ch 00000010",
        "amdgpu 0000:c5:00.0: amdgpu: Fence fallback timer expired on ring sdma0",
        "engine[4321]: segfault at 0 ip 0 sp 0 error 4",
    ],
)
def test_other_words_of_the_kernel_are_not(recipe: str, line: str) -> None:
    assert diagnose(problems(recipe), ("bye",), None, (line,)) is None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "line",
    [
        "CUDA error: an illegal memory access was encountered",
        "RuntimeError: CUDA error: device-side assert triggered",
        "CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: HIP error: unspecified launch failure",
        "hipErrorLaunchFailure",
        "Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x7f. Reason: Unknown.",
        "HW Exception by GPU node-1 reason: GPU Hang",
    ],
)
def test_a_fault_that_the_engine_tells_of_is_severe(recipe: str, line: str) -> None:
    found = diagnose(problems(recipe), (line,), 6)
    assert found is not None
    assert (found.name, found.severe) == ("device-fault", True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_little_memory_is_no_fault(recipe: str) -> None:
    found = diagnose(problems(recipe), ("CUDA error: out of memory", "HIP out of memory"), None)
    assert found is None or not found.severe


def test_either_the_output_or_the_kernel_tells() -> None:
    both = [KnownProblem("out {x}", "It.", "Do.", kernel="in (?P<x>.)")]
    assert diagnose(both, ("nothing",), None, ("nothing",)) is None
    assert diagnose(both, ("nothing",), None, ("in b",)) is not None
    told = [KnownProblem("", "It is {x}.", "Do {x}.", kernel="in (?P<x>.)")]
    found = diagnose(told, (), None, ("in b",))
    assert found is not None
    assert found.cause == "It is b."
