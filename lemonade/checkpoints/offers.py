"""What a repository offers: the reply to a question for its variants.

Pure, but for the two answers of the hub it is given. What kind of repository it is, is seen from
its files: GGUF models, a folder for an ONNX engine, or the manifest of a collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lemonade.catalog import RecipeSpec
from lemonade.core.errors import CheckpointError
from lemonade.core.inference import JsonObject
from lemonade.planning.checkpoint import RepoListing
from lemonade.planning.gguf import Variant, drafts, enumerate_variants, is_gguf, projectors

LARGEST_MANIFEST: Final = 5 << 20
"""Bytes a collection's manifest may have."""


def manifest_of(listing: RepoListing) -> str | None:
    """The file that would describe the repository as a collection, if there is one."""
    if any(is_gguf(file.path) for file in listing.files):
        return None
    name = f"{listing.repository.rpartition('/')[2]}.json"
    return next(
        (
            file.path
            for file in listing.files
            if file.path == name and file.size_bytes <= LARGEST_MANIFEST
        ),
        None,
    )


def offer(
    listing: RepoListing,
    source: str,
    recipes: Mapping[str, RecipeSpec],
    kinds: Mapping[str, str],
    manifest: bytes | None,
) -> JsonObject:
    """The reply.

    Args:
        listing: what the repository holds.
        source: the registry it is on.
        recipes: by name, in order of preference.
        kinds: recipes for the kinds of repository other than GGUF, as far as there are any.
        manifest: content of `manifest_of`.

    Raises:
        CheckpointError: it is nothing this version can offer.
    """
    if any(is_gguf(file.path) for file in listing.files):
        recipe = next((r.id for r in recipes.values() if r.files == "gguf"), "")
        return _reply(listing, source, recipe, "gguf", recipes)
    names = {file.name for file in listing.files}
    if "genai_config.json" in names and any(name.endswith(".onnx") for name in names):
        kind = "onnx-ryzenai"
        return _reply(listing, source, kinds.get(kind, ""), kind, recipes)
    collection = _collection(manifest) if manifest is not None else None
    if collection is not None:
        kind = "collection"
        reply = _reply(listing, source, kinds.get(kind, ""), kind, recipes)
        return {**reply, **collection}
    raise CheckpointError(
        f"{listing.repository} holds no GGUF files and nothing else this version offers.",
        remedy="Register the model by hand, with the recipe that runs it.",
        facts={"repository": listing.repository},
    )


def _reply(
    listing: RepoListing,
    source: str,
    recipe: str,
    kind: str,
    recipes: Mapping[str, RecipeSpec],
) -> JsonObject:
    if not recipe:
        raise CheckpointError(
            f"{listing.repository} is of the kind '{kind}', which this version does not run.",
            remedy="Choose a repository with GGUF files.",
            facts={"repository": listing.repository, "repo_kind": kind},
        )
    mmproj = projectors(listing.files)
    return {
        "checkpoint": listing.repository,
        "source": source,
        "recipe": recipe,
        "repo_kind": kind,
        "suggested_name": listing.repository.rpartition("/")[2],
        "suggested_labels": _labels(listing.repository, mmproj, recipes.get(recipe)),
        "mmproj_files": list(mmproj),
        "draft_files": list(drafts(listing.files)),
        "variants": [_variant(variant) for variant in _variants(listing, kind)],
    }


def _variants(listing: RepoListing, kind: str) -> tuple[Variant, ...]:
    if kind == "gguf":
        return enumerate_variants(listing.files)
    if kind == "collection":
        return ()
    paths = tuple(sorted(file.path for file in listing.files))
    primary = next(path for path in paths if path.endswith("genai_config.json"))
    size = sum(file.size_bytes for file in listing.files)
    return (Variant("default", "", primary, paths, sharded=False, size_bytes=size),)


def _variant(variant: Variant) -> dict[str, object]:
    return {
        "name": variant.name,
        "primary_file": variant.primary,
        "files": list(variant.files),
        "sharded": variant.sharded,
        "size_bytes": variant.size_bytes,
    }


def _labels(repository: str, mmproj: Sequence[str], recipe: RecipeSpec | None) -> list[str]:
    labels = ["vision"] if mmproj else []
    name = repository.lower()
    if "rerank" in name:
        return [*labels, "reranking"]
    if "embed" in name:
        return [*labels, "embeddings"]
    # A model has one mode: the recipe's own only where the name suggests no other.
    return [*labels, recipe.modes[0]] if recipe is not None else [*labels, "chat"]


def _collection(manifest: bytes) -> dict[str, Any] | None:
    """What a manifest says, if it is one."""
    try:
        document = json.loads(manifest)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    components = document.get("components")
    if not isinstance(components, list) or not components:
        return None
    said: dict[str, Any] = {"component_count": len(components)}
    if isinstance(document.get("size"), int | float):
        said["size"] = document["size"]
    return said
