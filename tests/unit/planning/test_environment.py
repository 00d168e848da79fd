"""Of our environment a child gets little, and one word about devices."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.bundle import Bundle
from lemonade.core.ids import BackendId
from lemonade.hardware.facts import Gpu
from lemonade.planning import plan_launch, visible_devices
from tests.unit.planning.examples import CHECKOUT, MACHINE, backend, facts, recipe

HIP, ROCR, CUDA = "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"
VULKAN = "GGML_VK_VISIBLE_DEVICES"
ORDINAL = "GPU_DEVICE_ORDINAL"

CASES: list[tuple[str, dict[str, str], dict[str, str], bool]] = [
    # backend, what the operator set, what the child gets, whether that is worth a line
    ("llamacpp-rocm", {}, {}, False),
    ("llamacpp-rocm", {HIP: "1"}, {HIP: "1"}, False),
    ("llamacpp-rocm", {HIP: "0,1", CUDA: "0,1"}, {HIP: "0,1"}, False),
    ("llamacpp-rocm", {HIP: "0", CUDA: "1"}, {HIP: "0"}, True),
    ("llamacpp-rocm", {CUDA: "1"}, {HIP: "1"}, True),
    ("llamacpp-rocm", {ORDINAL: "2"}, {HIP: "2"}, True),
    ("llamacpp-rocm", {ROCR: "GPU-1a2b,GPU-3c4d"}, {HIP: "GPU-1a2b,GPU-3c4d"}, True),
    ("llamacpp-rocm", {ROCR: "2,3", HIP: "1"}, {HIP: "3"}, True),
    ("llamacpp-rocm", {ROCR: "2,3", HIP: "1,0"}, {HIP: "3,2"}, True),
    ("llamacpp-rocm", {ROCR: "GPU-1a2b, GPU-3c4d", HIP: "1"}, {HIP: "GPU-3c4d"}, True),
    ("llamacpp-rocm", {ROCR: "2,3", HIP: "0,7,1"}, {HIP: "2"}, True),
    ("llamacpp-rocm", {ROCR: "2,3", HIP: "-1"}, {HIP: "-1"}, True),
    ("llamacpp-rocm", {ROCR: "2", CUDA: "0"}, {HIP: "2"}, True),
    ("llamacpp-rocm", {HIP: ""}, {HIP: ""}, False),
    ("llamacpp-rocm", {VULKAN: "0", "ZE_AFFINITY_MASK": "0"}, {}, False),
    ("vllm-rocm", {HIP: "1", "NVIDIA_VISIBLE_DEVICES": "all"}, {HIP: "1"}, False),
    ("vllm-cuda", {CUDA: "1", HIP: "0", ROCR: "0"}, {CUDA: "1"}, False),
    ("vllm-cuda", {HIP: "0"}, {}, False),
    ("llamacpp-vulkan", {VULKAN: "1", CUDA: "0"}, {VULKAN: "1"}, False),
    ("vllm-cpu", {HIP: "0", CUDA: "1", VULKAN: "0"}, {}, False),
]


@pytest.mark.parametrize(("name", "ours", "theirs", "noticed"), CASES)
def test_one_word_about_devices(
    name: str, ours: dict[str, str], theirs: dict[str, str], noticed: bool
) -> None:
    seen = visible_devices(ours, backend(name), MACHINE, own_program=False)
    assert dict(seen.variables) == theirs
    assert bool(seen.notice) is noticed, seen.notice


def test_cuda_speaks_of_nvidias_gpus_where_there_are_some() -> None:
    both = replace(MACHINE, gpus=(Gpu("nvidia", "a", "sm_86", integrated=False),))
    seen = visible_devices({CUDA: "1"}, backend("llamacpp-rocm"), both, own_program=False)
    assert dict(seen.variables) == {}


def test_the_operators_own_program_gets_them_as_they_are() -> None:
    given = {HIP: "0", CUDA: "1", VULKAN: "2"}
    seen = visible_devices(given, backend("llamacpp-system"), MACHINE, own_program=True)
    assert dict(seen.variables) == given


def test_every_backend_on_a_gpu_says_what_it_listens_to() -> None:
    for path in (CHECKOUT / "backends").glob("*.toml"):
        document = tomllib.loads(path.read_text())
        variant = path.stem.rpartition("-")[2]
        expected = {"rocm": HIP, "cuda": CUDA, "vulkan": VULKAN}.get(variant, "")
        assert document.get("visible_by", "") == expected, path.name


def test_what_it_compiles_lies_in_a_folder_of_its_version() -> None:
    cache = Path("/cache/compile/vllm-cuda-0.32.0")
    spec = plan_launch(
        facts(
            recipe=recipe("vllm"),
            backend=backend("vllm-cuda"),
            bundle=Bundle(BackendId.parse("vllm:cuda"), "0.32.0", Path("/b"), ("/b/python",)),
            compile_cache=cache,
            environ={"XDG_CACHE_HOME": "/home/me/.cache", "TRITON_CACHE_DIR": "/tmp/shared"},
        )
    )
    assert spec.env["TRITON_CACHE_DIR"] == f"{cache}/triton"
    assert spec.env["XDG_CACHE_HOME"] == f"{cache}/other"
    assert spec.env["VLLM_CACHE_ROOT"] == f"{cache}/vllm"
