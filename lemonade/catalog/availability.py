"""Why a model is not offered on this machine."""

from __future__ import annotations

from collections.abc import Callable

from lemonade.catalog.catalog import Catalog
from lemonade.catalog.model import ModelSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.units import render_size


def unavailable_reason(
    spec: ModelSpec,
    catalog: Catalog,
    machine_supports: Callable[[ModelSpec], str | None],
    pool_bytes: int,
) -> str | None:
    """A sentence for people, or `None` if the model can be run here.

    Args:
        spec: the model.
        catalog: what this version declares.
        machine_supports: for a model, why none of its recipe's backends runs it here, or `None`.
        pool_bytes: the largest memory a model may fill; 0 when nobody knows. Only built-in models
            are measured against it: who brought a model of their own knows what they do.
    """
    if reason := not_run_reason(spec, catalog):
        return reason
    if spec.recipe not in catalog.recipes:
        if spec.is_collection:
            return "This version cannot run collections of models yet."
        return f"This version has no recipe '{spec.recipe}' yet."
    reason = machine_supports(spec)
    if reason is not None:
        return reason
    size_bytes = int(spec.size_gb * 1e9)
    if spec.origin == "builtin" and 0 < pool_bytes < size_bytes:
        return (
            f"It takes {render_size(size_bytes)}, and the largest memory of this machine that "
            f"models may fill has {render_size(pool_bytes)}."
        )
    return None


def not_run_reason(spec: ModelSpec, catalog: Catalog) -> str | None:
    """A sentence if its recipe is declared but not run by this version, on any machine."""
    recipe = catalog.recipes.get(spec.recipe)
    return None if recipe is None or recipe.runs else not_run(recipe)


def not_run(recipe: RecipeSpec) -> str:
    """What people are told about a recipe that this version does not run."""
    return f"Lemonade can install {recipe.title} but does not run it yet."
