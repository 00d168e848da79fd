"""A room's `__init__.py` is its front door: what it names is what it has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.tree import PACKAGE, module_name, parsed

DOORS = sorted(PACKAGE.rglob("__init__.py"))


def bound_names(tree: ast.Module) -> set[str]:
    """Public names the door itself binds: imported, assigned or defined."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ImportFrom(module="__future__"):
                continue
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def offered_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
        ):
            offered: list[str] = ast.literal_eval(node.value)
            return offered
    return []


@pytest.mark.parametrize("door", DOORS, ids=module_name)
def test_a_door_offers_what_it_has(door: Path) -> None:
    tree = parsed(door)
    offered = offered_names(tree)
    assert len(offered) == len(set(offered)), "a name is offered twice"
    assert set(offered) <= bound_names(tree), "a name is offered that is not there"
    room = module_name(door)
    own = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{room}.")
        for alias in node.names
    }
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    }
    assert own | defined <= set(offered), "a name is there that is not offered"
