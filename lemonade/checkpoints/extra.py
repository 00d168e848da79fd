"""The operator's own folder of GGUF files, as models.

A file at the top is a model. A sub-folder is one too, unless it plainly holds several: then each
of its variants is. Projectors make the models beside them see. Of a file nothing but its beginning
is read, to tell adapters from models; what cannot be read is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from lemonade.catalog import EXTRA_SOURCE, ModelSpec
from lemonade.checkpoints.gguf_header import is_adapter
from lemonade.planning.gguf import (
    RepoFile,
    Variant,
    enumerate_variants,
    family_of,
    is_gguf,
    is_projector,
    is_weights,
    unsharded_stem,
)

_LONGEST_NAME: Final = 100
"""Leaves room for what makes names different."""


def models_in(directory: Path, recipe: str) -> tuple[ModelSpec, ...]:
    """The models of a folder and what is below it, run by `recipe`. Blocks."""
    found: dict[str, ModelSpec] = {}
    for parent, files in _folders(directory):
        is_top = parent == directory
        for name, checkpoints, size in _top(files) if is_top else _folder(parent, files):
            unique = _unused(_sayable(name), found, "" if is_top else _sayable(parent.name))
            absolute = {role: str(parent / path) for role, path in checkpoints.items()}
            found[unique] = ModelSpec(
                name=unique,
                origin="extra",
                recipe=recipe,
                checkpoints=absolute,
                labels=("custom", "chat", *(["vision"] if "mmproj" in checkpoints else [])),
                size=round(size / 1e9, 6),
                suggested=True,
                source=EXTRA_SOURCE,
            )
    return tuple(found.values())


_Model = tuple[str, dict[str, str], int]
"""Name, checkpoints relative to the folder, and bytes."""


def _top(files: Sequence[RepoFile]) -> Iterator[_Model]:
    sizes = {file.path: file.size_bytes for file in files if is_weights(file.path)}
    seen: set[str] = set()
    for path in sorted(sizes):
        if path in seen:
            continue
        family = family_of(path, sizes)
        seen.update(family)
        yield unsharded_stem(path), {"main": family[0]}, sum(sizes[part] for part in family)


def _folder(parent: Path, files: Sequence[RepoFile]) -> Iterator[_Model]:
    weights = [file for file in files if is_weights(file.path)]
    if not weights:
        return
    projector = min((file.path for file in files if is_projector(file.path)), default=None)
    mmproj = {"mmproj": projector} if projector is not None else {}
    variants = enumerate_variants(weights)
    if _are_several(variants, weights):
        for variant in sorted(variants, key=lambda variant: variant.primary):
            name = unsharded_stem(variant.primary)
            yield name, {"main": variant.primary, **mmproj}, variant.size_bytes
    else:
        # The folder itself, of which the first file is run.
        yield parent.name, {"main": "", **mmproj}, sum(file.size_bytes for file in weights)


def _are_several(variants: Sequence[Variant], weights: Sequence[RepoFile]) -> bool:
    """Whether the folder plainly holds several models: each named, and none left over."""
    covered = {path for variant in variants for path in variant.files}
    return (
        len(variants) > 1
        and all(variant.quant for variant in variants)
        and covered == {file.path for file in weights}
    )


def _folders(directory: Path) -> Iterator[tuple[Path, list[RepoFile]]]:
    """Every folder with GGUF files, in order, with those that can be looked at."""
    seen: set[tuple[int, int]] = set()
    _first_time(directory, seen)
    for parent, folders, names in os.walk(directory, followlinks=True):
        folders.sort()
        # Links may lead back up.
        folders[:] = [name for name in folders if _first_time(Path(parent, name), seen)]
        files = list(_sized(Path(parent), sorted(filter(_is_model, names))))
        if files:
            yield Path(parent), files


def _first_time(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        stat = folder.stat()
    except OSError:
        return False
    key = (stat.st_dev, stat.st_ino)
    new = key not in seen
    seen.add(key)
    return new


def _is_model(name: str) -> bool:
    """GGUF, and not what macOS puts beside a file on other systems' disks."""
    return is_gguf(name) and not name.startswith("._")


def _sized(parent: Path, names: Iterable[str]) -> Iterator[RepoFile]:
    for name in names:
        try:
            stat = (parent / name).stat()
        except OSError:
            continue
        if (parent / name).is_file() and not is_adapter(parent / name):
            yield RepoFile(name, stat.st_size)


def _sayable(name: str) -> str:
    """A file's name as one that clients can ask for."""
    shown = "".join(c if c.isprintable() and c != "\\" else "_" for c in name).strip()
    shown = shown[:_LONGEST_NAME].rstrip() or "_"
    return shown.replace(".", "_") if set(shown) == {"."} else shown


def _unused(name: str, taken: Iterable[str], folder: str) -> str:
    """The name, made different from those that are taken."""
    if name not in taken:
        return name
    base = f"{folder}-{name}" if folder and folder != name else name
    candidate, number = base, 2
    while candidate in taken:
        candidate, number = f"{base}-{number}", number + 1
    return candidate
