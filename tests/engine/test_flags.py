"""The child's command line against the installed wheel, the recipe and a genuine llama-server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.planning import EffectiveOptions, parse_argv, plan_command
from tests.engine.children import PATIENCE, outcome
from tests.engine.install import WHEEL
from tests.unit.planning.examples import facts

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tried(engine_bundle: Bundle) -> dict[str, list[str]]:
    program = Path(__file__).with_name("try_flags.py")
    overlay = Catalog.load((shipped(),)).overlay_dir(WHEEL)
    done = subprocess.run(
        [engine_bundle.argv[0], "-I", str(program), str(overlay)],
        env={},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_every_flag_reaches_its_field(tried: dict[str, list[str]]) -> None:
    assert tried["problems"] == []
    assert len(tried["tried"]) > 200


def test_every_flag_of_the_recipe_is_known(tried: dict[str, list[str]]) -> None:
    argv = Catalog.load((shipped(),)).recipe("llamacpp").argv
    words = [*argv.always, *argv.context, *argv.device, *argv.reserved, *argv.repeatable]
    words += [word for row in argv.for_mode.values() for word in row]
    words += [word for row in argv.for_checkpoint.values() for word in row]
    words += [word for row in argv.synonyms for word in row]
    flags = {word for word in words if word.startswith("-")}
    assert sorted(flags - set(tried["known"])) == []


def test_no_spelling_is_of_our_invention(tried: dict[str, list[str]]) -> None:
    genuine = os.environ.get("LLAMA_SERVER_BIN")
    if not genuine:
        pytest.skip("LLAMA_SERVER_BIN names no llama-server")
    help_text = subprocess.run(
        [genuine, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout
    real = set(re.findall(r"(?<![\w<`-])--?[a-zA-Z][\w-]*", help_text))
    assert sorted(set(tried["known"]) - real) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "error: invalid argument: --bogus"),
        (["-m", "x", "stray"], "error: invalid argument: stray"),
        (["--no-mmap", "-m", "x"], "error: invalid argument: --no-mmap"),
        (["-c", "many"], "error while handling argument \"-c\": 'many' is not a whole number"),
        (["--ctx-size=-5"], "is not between 0 and"),
        (["--port", "70000"], "is not between 0 and 65535"),
        (["--temp", "hot"], "'hot' is not a number"),
        (["-c"], 'error while handling argument "-c": expected a value'),
        (["--metrics=yes"], "takes no value"),
        (["-fa", "maybe"], "'maybe' is not one of on, off, auto"),
        (["--pooling", "best"], "'best' is not one of none, mean, cls, last, rank"),
        (["--device", "Vulkan0"], "computes on the processor only"),
        (["--lora-scaled", "file"], "'file' is not FILE:SCALE"),
        (["--chat-template-kwargs", "{"], "not JSON"),
        (["--chat-template-kwargs", "[]"], "not a JSON object"),
        (["--chat-template-file", "/nowhere"], "No such file"),
        (["--samplers", "bogus"], "names no sampler"),
        (["-ot", "nonsense"], 'error while handling argument "-ot"'),
        (["--ssl-key-file", "x"], "error: --ssl-key-file: this engine listens without TLS"),
        (["-hf", "some/repo"], "error: -hf: this engine takes files and downloads nothing"),
        (["--override-kv", "a=int:1"], "a genuine llama-server can"),
        (["-c", "128"], "error: --model is required"),
        ([], "error: --model is required"),
    ],
)
def test_refusals(engine: tuple[str, ...], arguments: list[str], said: str) -> None:
    status, output, errors = outcome(engine, *arguments)
    assert (status, output) == (1, "")
    assert said in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("genuine", [False, True], ids=["embedded", "genuine"])
def test_a_value_that_looks_like_a_flag_arrives(engine: tuple[str, ...], *, genuine: bool) -> None:
    program = (os.environ.get("LLAMA_SERVER_BIN", ""),) if genuine else engine
    if not program[0]:
        pytest.skip("LLAMA_SERVER_BIN names no llama-server")
    given = parse_argv("--reasoning-budget-message=--enough", "request")
    command = plan_command(facts(options=EffectiveOptions({}, {}, given)))
    status, _, errors = outcome(program, *command.words[-2:], "-m", "/nowhere/model.gguf")
    assert command.words[-1] == "--enough"
    assert status == 1
    assert "/nowhere/model.gguf" in errors, "it has come as far as the model"


def test_underscores_are_hyphens(engine: tuple[str, ...]) -> None:
    assert "--model is required" in outcome(engine, "--ctx_size", "128")[2]


def test_version(engine: tuple[str, ...], engine_bundle: Bundle) -> None:
    status, output, _ = outcome(engine, "--version")
    assert (status, output) == (0, f"xllamacpp {engine_bundle.version}\n")


def test_help_lists_all_flags(engine: tuple[str, ...], tried: dict[str, list[str]]) -> None:
    status, output, _ = outcome(engine, "--help")
    assert status == 0
    for flag in ("--ctx-size", "--reranking", "--lora-scaled", "--no-warmup", "--seed"):
        assert flag in output
