"""What the source may not say, and how long it may be."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

from tests.house.tree import CHECKOUT, PACKAGE, literals, parsed, python_files, shown

LONGEST_FILE = 420
"""Lines of code: blank lines, comments and docstrings are free."""

RECIPES = sorted(
    tomllib.loads(path.read_text())["id"] for path in (CHECKOUT / "recipes").glob("*.toml")
)


def mentions_recipe(text: str) -> bool:
    """Whether a string could be compared with a recipe's name, or used to look one up.

    Sentences may give an example; what has a blank in it is taken for one.
    """
    if any(char.isspace() for char in text):
        return False
    return any(re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", text) for name in RECIPES)


def test_no_recipe_is_known_to_the_code_by_name() -> None:
    rules = PACKAGE / "planning" / "rules"
    found = [
        f"{shown(path)}:{line}: {text!r}"
        for path in python_files("lemonade")
        if rules not in path.parents
        for line, text in literals(parsed(path))
        if mentions_recipe(text)
    ]
    assert not found, (
        "what is true of one recipe belongs in its file, or in a rule:\n" + "\n".join(found)
    )


@pytest.mark.parametrize(
    ("source", "guilty"),
    [
        ("x = 'llamacpp'", True),
        ("x = f'llamacpp:{y}'", True),
        ("x = 'llamacpp_args'", True),
        ("x = {'llamacpp-wheel': 1}", True),
        ("'''llamacpp'''", False),
        ("x = 1\n'''llamacpp'''", False),
        ("x = 'as in llamacpp:wheel'", False),
        ("x = f'{y} as in llamacpp:{z}'", False),
        ("x = 'myllamacpp2'", False),
    ],
)
def test_the_search_for_recipe_names_finds_them(source: str, *, guilty: bool) -> None:
    assert any(mentions_recipe(text) for _, text in literals(ast.parse(source))) is guilty


def test_nothing_is_mocked() -> None:
    found = []
    for path in python_files("lemonade", "tests", "bench"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            if any(name.startswith(("unittest.mock", "mock", "pytest_mock")) for name in names):
                found.append(f"{shown(path)}:{node.lineno}")
    assert not found, "use a fake that obeys the protocol, or the real thing: " + ", ".join(found)


def lines_of_code(path: Path) -> int:
    described: set[int] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            described |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    free = {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type not in free:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - described)


def test_files_hold_one_idea() -> None:
    lengths = {shown(path): lines_of_code(path) for path in python_files("lemonade", "tests")}
    too_long = {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert not too_long, f"over {LONGEST_FILE} lines there is a second idea inside: {too_long}"


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        shown(path) for path in python_files("lemonade") if ast.get_docstring(parsed(path)) is None
    ]
    assert not silent
