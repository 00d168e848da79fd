"""Which files of a repository are an adapter, whatever else is in it."""

from __future__ import annotations

import re

import pytest

from lemonade.core.errors import NotInRepository
from lemonade.planning.checkpoint import FileKind, RepoFile, RepoListing, plan_checkpoint

CONFIG = "adapter_config.json"
SAFE = "adapter_model.safetensors"
BIN = "adapter_model.bin"
MODEL = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "training_args.bin")
STEPS = (f"checkpoint-8/{CONFIG}", f"checkpoint-8/{SAFE}", "checkpoint-8/optimizer.pt")


def chosen(paths: tuple[str, ...], kind: FileKind, variant: str = "") -> tuple[list[str], str]:
    """What is fetched, and what the engine is given."""
    listing = RepoListing("o/r", "c0ffee", tuple(RepoFile(path, 1) for path in paths))
    checkpoint = f"o/r:{variant}" if variant else "o/r"
    plan = plan_checkpoint("main", checkpoint, listing, kind)
    assert not plan.noted, "what is noted of the repository is about a model in it"
    return [file.path for file in plan.files], plan.primary


@pytest.mark.parametrize(
    ("paths", "variant", "expected"),
    [
        ((CONFIG, SAFE), "", [CONFIG, SAFE]),
        ((*MODEL, *STEPS, CONFIG, SAFE), "", [CONFIG, SAFE]),
        ((CONFIG, BIN, SAFE, "adapter_model.pt"), "", [CONFIG, SAFE]),
        ((CONFIG, BIN), "", [CONFIG, BIN]),
        ((CONFIG, SAFE, *STEPS), "checkpoint-8", list(STEPS[:2])),
        (STEPS, "checkpoint-8/", list(STEPS[:2])),
        ((f"a/b/{CONFIG}", f"a/b/{BIN}"), "a/b", [f"a/b/{CONFIG}", f"a/b/{BIN}"]),
    ],
)
def test_a_folder_as_peft_writes_it(
    paths: tuple[str, ...], variant: str, expected: list[str]
) -> None:
    assert chosen(paths, "peft", variant) == (expected, "")


@pytest.mark.parametrize(
    ("paths", "variant", "words"),
    [
        (MODEL, "", "o/r has no adapter: .*Choose a repository with adapter_config.json"),
        ((CONFIG, *MODEL), "", "o/r has no adapter: "),
        ((SAFE,), "", "o/r has no adapter: "),
        (STEPS, "", "at its root.*Write o/r:checkpoint-8."),
        ((CONFIG, SAFE), "other", "o/r has no adapter in 'other'"),
        ((CONFIG, SAFE), SAFE, "has no adapter in"),
        (("lora.gguf",), "", "takes no GGUF files as adapters"),
        ((), "", "o/r has no adapter"),
    ],
)
def test_no_such_folder(paths: tuple[str, ...], variant: str, words: str) -> None:
    with pytest.raises(NotInRepository) as caught:
        chosen(paths, "peft", variant)
    assert_said(caught.value, words)


@pytest.mark.parametrize(
    ("paths", "variant", "expected"),
    [
        (("poems.gguf", *MODEL), "", ["poems.gguf"]),
        (("sub/poems.gguf", CONFIG, SAFE), "", ["sub/poems.gguf"]),
        (("poems.gguf", "model-Q4_K_M.gguf"), "poems.gguf", ["poems.gguf"]),
        (("poems-f16.gguf", "poems-q8_0.gguf", "config.json"), "f16", ["poems-f16.gguf"]),
    ],
)
def test_a_gguf_file(paths: tuple[str, ...], variant: str, expected: list[str]) -> None:
    assert chosen(paths, "gguf-adapter", variant) == (expected, expected[0])


@pytest.mark.parametrize(
    ("paths", "variant", "words"),
    [
        (("poems.gguf", "model-Q4_K_M.gguf"), "", "2 GGUF files.*o/r:model-Q4_K_M.gguf, or"),
        (MODEL, "", "o/r has no adapter: there is no .gguf file"),
        ((CONFIG, SAFE), "", "It has one for PEFT.*convert_lora_to_gguf"),
        (("poems.gguf",), "other.gguf", "nothing called 'other.gguf'"),
    ],
)
def test_no_such_file(paths: tuple[str, ...], variant: str, words: str) -> None:
    with pytest.raises(NotInRepository) as caught:
        chosen(paths, "gguf-adapter", variant)
    assert_said(caught.value, words)


def assert_said(error: NotInRepository, words: str) -> None:
    said = f"{error.message} {error.remedy}"
    assert re.search(words, said), said
