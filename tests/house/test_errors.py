"""The tree of errors is as it is drawn, and every code means one thing."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from lemonade.core import errors
from lemonade.core.errors import LemonadeError
from tests.house.tree import parsed, python_files, shown


def classes() -> list[type[LemonadeError]]:
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, LemonadeError)
    ]


def drawn() -> dict[str, str]:
    """Class to parent, as the module's docstring draws it."""
    assert errors.__doc__ is not None
    drawing = errors.__doc__.split("```")[1]
    parents: dict[str, str] = {}
    branch = "LemonadeError"
    for line in drawing.strip().splitlines()[1:]:
        without_notes = re.sub(r"\(.*?\)", "", line)
        names = re.findall(r"[A-Z]\w+", without_notes)
        if "──" in line:
            head, *leaves = names
            parents[head] = "LemonadeError"
            if re.search(rf"{head}\s+·", without_notes):  # several leaves on one branch
                parents |= dict.fromkeys(leaves, "LemonadeError")
                continue
            branch, names = head, leaves
        parents |= dict.fromkeys(names, branch)
    return parents


def test_the_drawing_is_true() -> None:
    actual = {
        kind.__name__: kind.__base__.__name__
        for kind in classes()
        if kind is not LemonadeError and kind.__base__ is not None
    }
    assert drawn() == actual


def test_every_code_is_stable_kebab_case_and_used_once() -> None:
    codes = [kind.code for kind in classes()]
    assert len(set(codes)) == len(codes)
    for kind in classes():
        assert "code" in vars(kind), f"{kind.__name__} has no code of its own"
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_a_code_is_the_name_of_its_class(kind: type[LemonadeError]) -> None:
    if kind is LemonadeError:
        return
    words = re.sub(r"(?<!^)([A-Z])", r"-\1", kind.__name__).lower()
    assert kind.code == words


def test_errors_with_a_code_are_defined_in_one_place() -> None:
    """A room may refine an error for itself; to everybody else it is the one that is drawn."""
    names = {kind.__name__ for kind in classes()}
    elsewhere = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in python_files("lemonade")
        if not shown(path).endswith("core/errors.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id in names for base in node.bases)
        and any(
            isinstance(target, ast.Name) and target.id == "code"
            for line in node.body
            if isinstance(line, ast.Assign | ast.AnnAssign)
            for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
        )
    ]
    assert not elsewhere
