"""Cases that Lemonade has always answered in one way, as far as no other table here has them.

Tokens, merging, families, refused flags and vLLM's device classes are in `argv_cases.tsv`,
`family_cases.tsv` and `test_vllm_launch.py`; which layers count is `test_arguments_scope`; whole
words of a command line are `test_a_flag_is_found_by_whole_words`. What is answered otherwise here:

* Merged text is not sorted by flag: order is kept, since some engines heed it. Cases that compare
  text are compared as sets of flags.
* Words before the first flag are refused rather than dropped (`belongs to no flag`).
* `--x` with `--no-x`: the higher layer replaces the lower one and stands at the end.
* FastFlowLM's own list of flags with their bounds has no test: Lemonade installs it and does not
  run it, so there is no command line that could be refused.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.bundle import Bundle
from lemonade.core.ids import BackendId
from lemonade.hardware.facts import Gpu, Machine
from lemonade.planning import (
    COMMON_OPTIONS,
    EffectiveOptions,
    judge,
    parse_argv,
    plan_install,
    plan_launch,
    select,
)
from lemonade.planning.matrix import best_device
from lemonade.planning.releases import family_of
from tests.unit.planning.examples import CHECKOUT, MACHINE, backend, facts, model, recipe
from tests.unit.planning.test_families import GRAMMAR, resolve

OLD = "vllm0.19.1-rocm7.13.0"
NEW = "vllm0.20.1-rocm7.12.0"
VLLM = backend("vllm-rocm")
RECIPES = sorted(path.stem for path in (CHECKOUT / "recipes").glob("*.toml"))


def with_gpus(*families: str, integrated: str = "") -> Machine:
    """Every GPU is of its own, but for one family."""
    gpus = [
        Gpu("amd", "A GPU", one, one == integrated, 16 << 30, cwsr_bytes=1, ctl_stack_bytes=1)
        for one in families
    ]
    return replace(MACHINE, gpus=tuple(gpus))


# ---- which options hold arguments of an engine


@pytest.mark.parametrize("name", RECIPES)
def test_options_with_arguments_are_those_that_end_so(name: str) -> None:
    options = recipe(name).option
    assert {one.name for one in options if one.type == "argv"} == {
        one.name for one in options if one.name.endswith("_args")
    }


def test_whether_to_merge_is_no_argument() -> None:
    (merging,) = [one for one in COMMON_OPTIONS if one.name == "merge_args"]
    assert merging.type == "bool"
    known = {one.name for name in RECIPES for one in recipe(name).option if one.type == "argv"}
    assert {"llamacpp_args", "sdcpp_args", "vllm_args", "flm_args"} <= known
    assert "merge_args" not in known


# ---- arguments that a model's label adds


@pytest.mark.parametrize(
    ("text", "merge", "expected"),
    [
        ("--threads 4", True, ("--threads", "4", "--spec-type", "draft-mtp")),
        ("--spec-type=draft-dflash", True, ("--spec-type", "draft-dflash")),
        ("--threads 4", False, ("--threads", "4")),
    ],
    ids=["at the end", "who says it decides", "not where nothing is merged"],
)
def test_what_a_label_adds(text: str, merge: bool, expected: tuple[str, ...]) -> None:
    options = EffectiveOptions({"merge_args": merge}, {}, parse_argv(text, "request"))
    argv = plan_launch(facts(model=model(labels=["chat", "mtp"]), options=options)).argv
    assert argv[argv.index("--no-webui") + 1 :] == expected


# ---- what of vLLM's arguments the launch depends on


def given(options: EffectiveOptions, flag: str) -> str | None:
    found = GRAMMAR.find(options.arguments, flag)
    return None if found is None else " ".join(found.values)


@pytest.mark.parametrize(
    ("model_name", "user", "flag", "expected"),
    [
        ("Unlisted-vLLM", "", "--dtype", None),
        ("Unlisted-vLLM", "--dtype bfloat16", "--dtype", "bfloat16"),
        ("Unlisted-vLLM", "", "--quantization", None),
        ("Qwen3.5-4B-vLLM", "", "--quantization", "awq"),
        ("Qwen3.5-4B-vLLM", "--quantization gptq", "--quantization", "gptq"),
        ("Unlisted-vLLM", "", "--enforce-eager", None),
        ("Unlisted-vLLM", "--enforce_eager", "--enforce-eager", ""),
        ("Unlisted-vLLM", "--gpu-memory-utilization 0.9", "--gpu-memory-utilization", "0.9"),
        ("Unlisted-vLLM", "", "--gpu-memory-utilization", None),
    ],
)
def test_what_is_known_of_the_arguments(
    model_name: str, user: str, flag: str, expected: str | None
) -> None:
    options = resolve("a", model_name, "Other/Model", request={"vllm_args": user} if user else {})
    assert given(options, flag) == expected


@pytest.mark.parametrize(
    ("model_name", "checkpoint", "tokens"),
    [("Own-vLLM", "Spec/Model", 1), ("Family-vLLM", "Spec/Model", 2), ("None", "Other/M", None)],
    ids=["the model's", "its family's", "nobody's"],
)
def test_speculation_is_one_argument(model_name: str, checkpoint: str, tokens: int | None) -> None:
    text = given(resolve("spec", model_name, checkpoint), "--speculative-config")
    expected = None if tokens is None else {"method": "mtp", "num_speculative_tokens": tokens}
    assert (json.loads(text) if text is not None else None) == expected


# ---- releases for a GPU


@pytest.mark.parametrize("version", [OLD, f"{OLD}-gfx942", ""])
def test_a_tag_ends_in_the_gpu_once(version: str) -> None:
    machine = with_gpus("gfx942")
    plan = plan_install(
        select(VLLM, machine, version=version), machine, (), Path("/bin"), force=True
    )
    assert plan.release is not None
    assert plan.release.tag == plan.version == f"{OLD}-gfx942"


@pytest.mark.parametrize(
    ("gpu", "family"),
    [
        ("gfx1100", "gfx110X"),
        ("gfx942", "gfx942"),
        ("gfx1201", "gfx120X"),
        ("gfx1103", "gfx110X"),
        ("gfx1036", "gfx103X"),
    ],
)
def test_gpus_of_a_generation_share_a_build(gpu: str, family: str) -> None:
    assert family_of(gpu) == family


@pytest.mark.parametrize(
    ("gpu", "version"),
    [("gfx942", OLD), ("gfx950", OLD), ("gfx1100", NEW), ("gfx1103", NEW), ("gfx1151", NEW)],
)
def test_some_gpus_have_another_version(gpu: str, version: str) -> None:
    machine = with_gpus(gpu)
    assert select(VLLM, machine).version == f"{version}-{family_of(gpu)}"


@pytest.mark.parametrize(
    ("gpu", "supported"),
    [
        ("gfx1100", True), ("gfx1151", True), ("gfx1150", True), ("gfx1201", True),
        ("gfx942", False), ("gfx950", False), ("gfx906", False), ("gfx1036", False),
    ],
)  # fmt: skip
def test_which_gpus_are_vouched_for(gpu: str, supported: bool) -> None:
    assert judge(VLLM, with_gpus(gpu)).supported is supported


@pytest.mark.parametrize(
    ("families", "chosen"),
    [
        (("gfx1151",), "gfx1151"),
        (("gfx1100",), "gfx1100"),
        (("gfx1151", "gfx1100"), "gfx1100"),
        (("gfx1151", "gfx1036"), "gfx1151"),
    ],
)
def test_which_gpu_decides(families: tuple[str, ...], chosen: str) -> None:
    device = best_device(VLLM.runs_on, with_gpus(*families, integrated="gfx1151"))
    assert isinstance(device, Gpu)
    assert device.family == chosen


@pytest.mark.parametrize(
    ("version", "matches"), [(OLD, True), (f"{OLD}-gfx942", True), (NEW, False)]
)
def test_a_version_that_is_here_is_found_by_its_beginning(version: str, matches: bool) -> None:
    machine = with_gpus("gfx942")
    here = Bundle(BackendId("vllm", "rocm"), f"{OLD}-gfx942", Path("/b"), ("/b/x",), verified=True)
    plan = plan_install(
        select(VLLM, machine, version=version), machine, (here,), Path("/bin"), force=True
    )
    assert (plan.present is not None) is matches
    assert select(VLLM, machine, version=version).satisfied_by(here.version) is matches
