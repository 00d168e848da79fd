"""From what a client sent to an entry of `user_models.json`. Pure: nothing is read or written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from lemonade.catalog.checkpoint_text import (
    canonical_source,
    check_checkpoint,
    from_page,
    is_local,
    one_source,
)
from lemonade.catalog.labels import CUSTOM, with_mode
from lemonade.catalog.model import beside_main
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import DefinitionDiffers, MalformedRequest
from lemonade.core.inference import JsonObject

_FLAGS: Final = {
    "reasoning": "reasoning",
    "vision": "vision",
    "embedding": "embeddings",
    "reranking": "reranking",
}
"""Booleans that older clients send, and the labels they stand for."""

_OBJECTS: Final = ("image_defaults", "recipe_options", "routing")
_STRINGS: Final = ("system_prompt",)
_COMPARED: Final = ("recipe", "source", "checkpoints")
"""What makes two definitions different models; the rest may be changed under the same name."""

Entry = dict[str, Any]
"""One value of `user_models.json`."""


def is_definition(request: JsonObject) -> bool:
    """Whether a pull's body defines a model instead of naming one that exists."""
    return any(
        request.get(key) for key in ("checkpoint", "checkpoints", "recipe", "components", "models")
    )


def says_labels(definition: JsonObject) -> bool:
    """Whether the definition names any label, in one way or the other."""
    return any(definition.get(key) for key in ("labels", *_FLAGS))


def read_definition(
    name: str,
    definition: JsonObject,
    *,
    recipe: Callable[[str], RecipeSpec],
    default_source: str,
    known: JsonObject | None,
) -> Entry:
    """The entry for the model.

    Args:
        name: bare.
        definition: as sent; keys that do not define anything are not looked at.
        recipe: finds a recipe or raises `UnknownRecipe`.
        default_source: where files come from if nobody says.
        known: the entry of that name, if there is one; a source that is not sent is its.

    Raises:
        MalformedRequest: a field is missing or wrong; the message names it.
        UnknownRecipe: this version does not have the recipe.
    """
    recipe_name = definition.get("recipe") or (known or {}).get("recipe")
    if not isinstance(recipe_name, str) or not recipe_name:
        raise MalformedRequest(
            f"The definition of '{name}' needs a 'recipe' that runs it.",
            remedy="`lemonade backends --all` lists the recipes.",
        )
    spec = recipe(recipe_name)
    checkpoints, pages = _checkpoints(name, definition)
    fallback = (known or {}).get("source") or default_source
    source = _source(definition, pages) or fallback
    _check_roles(checkpoints, spec)
    for role, checkpoint in checkpoints.items():
        check_checkpoint(role, checkpoint, source)
        _needs_variant(role, checkpoint, source, spec)
    entry: Entry = {
        "recipe": spec.id,
        "source": source,
        "checkpoints": checkpoints,
        "labels": _labels(definition, spec),
        "suggested": True,
    }
    entry.update(_optional(definition))
    return entry


def differences(known: JsonObject, entry: JsonObject) -> tuple[str, ...]:
    """What makes the two different models, as sentences' parts."""
    return tuple(
        f"{key} was {_shown(known.get(key))} and would be {_shown(entry.get(key))}"
        for key in _COMPARED
        if _comparable(known, key) != _comparable(entry, key)
    )


def differs(name: str, parts: tuple[str, ...]) -> DefinitionDiffers:
    """The error for a name that means another model already."""
    return DefinitionDiffers(
        f"'user.{name}' is registered with another definition: {'; '.join(parts)}.",
        remedy=f"Choose another name, or `lemonade delete user.{name}` first.",
        facts={"differences": list(parts)},
    )


def _checkpoints(
    name: str, definition: JsonObject
) -> tuple[dict[str, str], list[tuple[str, str | None]]]:
    """Role to checkpoint, and which hub each page that was given belongs to."""
    declared = definition.get("checkpoints") or {}
    if not isinstance(declared, Mapping):
        raise MalformedRequest("'checkpoints' must be an object of role and checkpoint.")
    single = definition.get("checkpoint") or None
    merged: dict[str, object] = {**({"main": single} if single else {}), **declared}
    checkpoints: dict[str, str] = {}
    pages: list[tuple[str, str | None]] = []
    for role, value in merged.items():
        if not isinstance(value, str) or not value.strip():
            raise MalformedRequest(f"The checkpoint for '{role}' must be a string.")
        checkpoints[str(role)], hub = from_page(value.strip())
        pages.append((f"the checkpoint for '{role}'", hub))
    if "main" not in checkpoints:
        raise MalformedRequest(
            f"The definition of '{name}' needs a 'checkpoint', or 'checkpoints' with 'main'.",
            remedy="Write owner/repo:variant, as in unsloth/Qwen3-0.6B-GGUF:Q4_K_M.",
        )
    mmproj = definition.get("mmproj") or ""
    if not isinstance(mmproj, str):
        raise MalformedRequest("'mmproj' must be a file name in the main repository.")
    if mmproj:
        checkpoints.setdefault("mmproj", beside_main(checkpoints["main"], mmproj))
    return checkpoints, pages


def _source(definition: JsonObject, pages: list[tuple[str, str | None]]) -> str | None:
    source = canonical_source(definition.get("source"), "source")
    registry = canonical_source(definition.get("registry_source"), "registry_source")
    if source is not None and is_local(source):
        return source
    return one_source([("'source'", source), ("'registry_source'", registry), *pages])


def _check_roles(checkpoints: Mapping[str, str], spec: RecipeSpec) -> None:
    for role in checkpoints:
        if role not in spec.checkpoints:
            raise MalformedRequest(
                f"Recipe {spec.id} has no checkpoint '{role}'.",
                remedy=f"It has {', '.join(spec.checkpoints)}.",
            )


def _needs_variant(role: str, checkpoint: str, source: str, spec: RecipeSpec) -> None:
    """Where one file out of many is meant, it must be said which."""
    if is_local(source) or ":" in checkpoint.rstrip(":"):
        return
    if role != "main":
        raise MalformedRequest(
            f"The checkpoint for '{role}' must name a file: '{checkpoint}' does not.",
            remedy=f"Write {checkpoint}:path/of/the-file.",
        )
    if spec.files == "gguf":
        raise MalformedRequest(
            f"'{checkpoint}' is a repository of GGUF files, and a variant must be chosen.",
            remedy=f"Write {checkpoint}:Q4_K_M, or the name of a file in it.",
        )


def _labels(definition: JsonObject, spec: RecipeSpec) -> list[str]:
    given = definition.get("labels") or []
    if not isinstance(given, (list, tuple)) or not all(isinstance(x, str) for x in given):
        raise MalformedRequest("'labels' must be a list of strings.")
    for flag in _FLAGS:
        if not isinstance(definition.get(flag) or False, bool):
            raise MalformedRequest(f"'{flag}' must be true or false.")
    flagged = [label for flag, label in _FLAGS.items() if definition.get(flag)]
    try:
        return sorted({CUSTOM, *with_mode([*given, *flagged], spec.modes, spec.id)})
    except ValueError as error:
        raise MalformedRequest(
            f"These labels cannot be: {error}.",
            remedy=f"Name one of {', '.join(spec.modes)}, or none.",
        ) from error


def _optional(definition: JsonObject) -> Entry:
    """The fields that need not be there, checked."""
    entry: Entry = {}
    for key in _OBJECTS:
        if (value := definition.get(key)) is not None:
            if not isinstance(value, Mapping):
                raise MalformedRequest(f"'{key}' must be an object.")
            if value:
                entry[key] = dict(value)
    for key in _STRINGS:
        if (value := definition.get(key)) is not None:
            if not isinstance(value, str):
                raise MalformedRequest(f"'{key}' must be a string.")
            entry[key] = value
    if (version := definition.get("version")) is not None:
        entry["version"] = version
    if (size := definition.get("size")) is not None:
        number = isinstance(size, (int, float)) and not isinstance(size, bool)
        if not number or not math.isfinite(size) or size < 0:
            raise MalformedRequest("'size' must be a number of gigabytes, 0 or more.")
        entry["size"] = size
    return entry


def _comparable(entry: JsonObject, key: str) -> object:
    if key != "checkpoints":
        return entry.get(key) or ("huggingface" if key == "source" else None)
    checkpoints = dict(entry.get("checkpoints") or {})
    if entry.get("checkpoint"):
        checkpoints.setdefault("main", entry["checkpoint"])
    if entry.get("mmproj") and "main" in checkpoints:
        main = str(checkpoints["main"])
        checkpoints.setdefault("mmproj", beside_main(main, entry["mmproj"]))
    return checkpoints


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value) if value else "not set"
