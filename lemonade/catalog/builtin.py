"""Reading `server_models.json`: the models that exist without anybody registering them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.catalog.labels import modes_in, with_mode
from lemonade.catalog.model import ModelSpec
from lemonade.catalog.names import clean_name
from lemonade.catalog.reading import Check, bad, read_object, validated
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import MalformedRequest

MODELS_FILE: Final = "server_models.json"


def read_models(
    path: Path, recipes: Mapping[str, RecipeSpec], check: Check | None = None
) -> dict[str, ModelSpec]:
    """The models of one file, by name, once `check` has nothing against it.

    A recipe that is not declared is no mistake: the model is kept, and cannot be run.

    Raises:
        BadDescriptor: an entry is wrong; the message names it.
    """
    return {
        name: _read_model(name, entry, path, recipes)
        for name, entry in read_object(path, check).items()
    }


def _read_model(
    name: str, entry: object, path: Path, recipes: Mapping[str, RecipeSpec]
) -> ModelSpec:
    try:
        clean = clean_name(name)
    except MalformedRequest as error:
        raise bad(path, (name,), error.message.rstrip(".")) from error
    if not isinstance(entry, dict):
        raise bad(path, (name,), "it must be an object")
    spec = validated(ModelSpec, {**entry, "name": clean, "origin": "builtin"}, path, (name,))
    recipe = recipes.get(spec.recipe)
    try:
        if recipe is not None:
            labels = with_mode(spec.labels, recipe.modes, recipe.id)
        elif len(modes_in(spec.labels)) > 1:
            labels = with_mode(spec.labels, (), spec.recipe)
        else:
            labels = spec.labels
    except ValueError as error:
        raise bad(path, (name, "labels"), str(error)) from error
    return spec.model_copy(update={"labels": labels})
