"""The named launch rules, through the plans they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lemonade.core.errors import BadDescriptor
from lemonade.planning import EffectiveOptions, parse_argv, plan_launch
from lemonade.planning.rules import RULES, find_rule
from tests.unit.planning.examples import CHECKOUT, a_recipe, facts, model, recipe


def speculation(argv: tuple[str, ...]) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == "--spec-type"]


def plan(
    *labels: str, draft: str = "", text: str = "", merge_args: bool = True
) -> tuple[str, ...]:
    files: dict[str, Any] = {"main": (Path("/models/tiny.gguf"),)}
    if draft:
        files["draft"] = (Path("/models") / draft,)
    options = EffectiveOptions(
        {"ctx_size": -1, "merge_args": merge_args}, {}, parse_argv(text, "request")
    )
    return plan_launch(
        facts(model=model(labels=["chat", *labels]), files=files, options=options)
    ).argv


@pytest.mark.parametrize(
    ("labels", "draft", "expected", "drafted"),
    [
        ((), "", [], False),
        (("mtp",), "", ["draft-mtp"], False),
        (("mtp",), "mtp-head.gguf", ["draft-mtp"], True),
        ((), "small.gguf", [], True),
        (("dflash",), "dflash-kquant.gguf", ["draft-dflash"], True),
        (("dflash",), "DFlash.GGUF", ["draft-dflash"], True),
        (("dflash",), "small.gguf", [], True),
        (("dflash",), "", [], False),
        ((), "dflash-kquant.gguf", [], False),
        (("dflash", "mtp"), "dflash-kquant.gguf", ["draft-dflash"], True),
        (("mtp",), "dflash-kquant.gguf", ["draft-mtp"], False),
    ],
)
def test_speculation_follows_label_and_draft(
    labels: tuple[str, ...], draft: str, expected: list[str], *, drafted: bool
) -> None:
    argv = plan(*labels, draft=draft)
    assert speculation(argv) == expected
    assert ("--model-draft" in argv) is drafted


@pytest.mark.parametrize("text", ["--spec-type none", "--spec-type=none", "--spec_type none"])
@pytest.mark.parametrize("label", ["mtp", "dflash"])
def test_an_explicit_choice_is_left_alone(text: str, label: str) -> None:
    assert speculation(plan(label, draft="dflash-x.gguf", text=text)) == ["none"]


@pytest.mark.parametrize("label", ["mtp", "dflash"])
def test_nothing_is_added_where_nothing_is_merged(label: str) -> None:
    argv = plan(label, draft="dflash-x.gguf", merge_args=False, text="--threads 4")
    assert speculation(argv) == []
    assert argv[-2:] == ("--threads", "4")


def test_an_unknown_rule_is_named_with_those_there_are() -> None:
    with pytest.raises(BadDescriptor, match="no launch rule 'moonshine'") as caught:
        plan_launch(facts(recipe=a_recipe(rules={"launch": ["moonshine"]})))
    assert "mtp-speculates" in caught.value.remedy


def test_every_rule_file_is_found() -> None:
    files = (CHECKOUT / "lemonade" / "planning" / "rules").glob("[!_]*.py")
    assert set(RULES) == {file.stem.replace("_", "-") for file in files}


def test_the_rules_of_the_recipe_exist() -> None:
    for name in recipe().rules.launch:
        assert callable(find_rule(name))
