"""What GGUF file names say: quantisation, shards, companions, and what variants there are.

Pure: it looks at names and sizes, never at a disk or a hub, so the same answers hold for a
repository's listing, for a snapshot on this disk and for a folder of the operator's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from lemonade.core.records import dataclass

_QUANT: Final = re.compile(
    r"""(?<![^\-._/])                                  # a delimiter or the start before it
    ((?:UD[-_])?
     (?:IQ\d(?:_(?:M|S|L|XS|XXS|NL))?
       |Q\d(?:_\d)?(?:_K)?(?:_(?:M|S|L|XL|XXL))?
       |BF16|F16|F32
       |MXFP\d(?:_MOE)?))
    (?=[-._/]|\Z)                                      # a delimiter or the end behind it""",
    re.IGNORECASE | re.VERBOSE,
)
_SHARD: Final = re.compile(
    r"(?P<base>.+)[-._](?P<index>\d+)-of-(?P<count>\d+)\.gguf\Z", re.IGNORECASE
)
_PREFERRED: Final = ("Q4_K_M", "UD-Q4_K_XL", "Q8_0", "Q4_0")


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository, as a listing has it.

    Attributes:
        path: relative to the repository's root, with forward slashes.
        size_bytes: 0 when the listing does not say.
        sha256: of the content, for files the hub keeps in large-file storage; else `None`.
        blob_id: git's name of the content; empty when the listing does not say.
    """

    path: str
    size_bytes: int = 0
    sha256: str | None = None
    blob_id: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a model cut into `count` files. Parts of one family share `key`."""

    base: str
    index: int
    count: int

    @property
    def key(self) -> tuple[str, int]:
        """What parts of one model have in common: the name before the number, and the count."""
        return (self.base, self.count)


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the models a GGUF repository offers.

    Attributes:
        name: what a checkpoint may say after the colon.
        quant: the quantisation the name is made of, upper case; empty if there is none.
        primary: path of the file an engine is given.
        files: paths of all its files, sorted.
        sharded: whether it is a folder or more than one file.
        size_bytes: of all files.
    """

    name: str
    quant: str
    primary: str
    files: tuple[str, ...]
    sharded: bool
    size_bytes: int


def is_gguf(path: str) -> bool:
    """Whether the name ends in `.gguf`, whatever the case."""
    return path.lower().endswith(".gguf")


def is_projector(path: str) -> bool:
    """Whether it is a multimodal projector, a companion of a model and not one itself."""
    return is_gguf(path) and "mmproj" in _name(path).lower()


def is_draft(path: str) -> bool:
    """Whether it is a draft for speculative decoding, a companion of a model."""
    name = _name(path).lower()
    return is_gguf(path) and (name.startswith(("dflash-", "mtp-")) or name == "dflash.gguf")


def is_weights(path: str) -> bool:
    """Whether it is a model of its own: GGUF, and no companion."""
    return is_gguf(path) and not is_projector(path) and not is_draft(path)


def projectors(files: Iterable[RepoFile]) -> tuple[str, ...]:
    """Names of the multimodal projectors, sorted."""
    return tuple(sorted(file.name for file in files if is_projector(file.path)))


def drafts(files: Iterable[RepoFile]) -> tuple[str, ...]:
    """Names of the draft models, sorted."""
    return tuple(sorted(f.name for f in files if is_draft(f.path) and not is_projector(f.path)))


def quant_of(name: str) -> str:
    """The quantisation a name mentions first, upper case; empty if it mentions none."""
    stem = name[: -len(".gguf")] if is_gguf(name) else name
    match = _QUANT.search(stem)
    return match[1].upper() if match else ""


def shard_of(path: str) -> Shard | None:
    """Which part of what the file is: `x-00002-of-00003.gguf` is part 2 of 3 of `x`."""
    match = _SHARD.match(path)
    if match is None:
        return None
    index, count = int(match["index"]), int(match["count"])
    return Shard(match["base"], index, count) if 1 <= index <= count else None


def family_of(path: str, paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that belong to the same model as `path`, in order; just itself if it is whole."""
    shard = shard_of(path)
    if shard is None:
        return (path,)
    parts: dict[int, str] = {}
    for other in sorted(paths):
        part = shard_of(other)
        if part is not None and part.key == shard.key:
            parts.setdefault(part.index, other)
    parts[shard.index] = path
    return tuple(parts[index] for index in sorted(parts))


def missing_parts(paths: Sequence[str]) -> tuple[str, ...]:
    """What is lacking to the shard families among the paths: `x: part 2 of 3`."""
    present: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        shard = shard_of(path)
        if shard is not None:
            present.setdefault(shard.key, set()).add(shard.index)
    return tuple(
        f"{_name(base)}: part {index} of {count}"
        for (base, count), indexes in sorted(present.items())
        for index in _absent(indexes, count)
    )


def unsharded_stem(path: str) -> str:
    """The file's name without `.gguf`, and without the number of a part."""
    shard = shard_of(path)
    return _name(shard.base) if shard else PurePosixPath(path).stem


def enumerate_variants(files: Iterable[RepoFile]) -> tuple[Variant, ...]:
    """The variants of a repository, the usual choices first, then by name.

    A top-level folder is one variant. Files at the root are grouped by shard family alone; those
    with a quantisation are variants, named by it where that is unambiguous. Only where nothing
    was recognised is every file at the root a variant, named by its file name.
    """
    folders: dict[str, list[RepoFile]] = {}
    series: dict[object, list[RepoFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if not is_weights(file.path):
            continue
        top, slash, _ = file.path.partition("/")
        shard = shard_of(file.path)
        if slash:
            folders.setdefault(top, []).append(file)
        else:
            series.setdefault(shard.key if shard else file.path, []).append(file)
    variants = [
        _variant(quant_of(top) or top, quant_of(top), group, sharded=True)
        for top, group in folders.items()
    ]
    recognised = [(quant_of(group[0].path), group) for group in series.values()]
    recognised = [(quant, group) for quant, group in recognised if quant]
    if not variants and not recognised:
        return _ordered(_variant(group[0].path, "", group) for group in series.values())
    taken = Counter(quant for quant, _ in recognised)
    taken.update(variant.name.upper() for variant in variants)
    for quant, group in recognised:
        name = quant if taken[quant] == 1 else PurePosixPath(group[0].path).stem
        variants.append(_variant(name, quant, group))
    return _ordered(variants)


def _variant(
    name: str, quant: str, files: Sequence[RepoFile], *, sharded: bool | None = None
) -> Variant:
    paths = tuple(sorted(file.path for file in files))
    return Variant(
        name=name,
        quant=quant,
        primary=paths[0],
        files=paths,
        sharded=len(paths) > 1 if sharded is None else sharded,
        size_bytes=sum(file.size_bytes for file in files),
    )


def _ordered(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    def rank(variant: Variant) -> tuple[int, str]:
        name = variant.name
        return (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)

    return tuple(sorted(variants, key=rank))


def _absent(indexes: set[int], count: int) -> Iterable[int]:
    """At most a handful of the missing indexes: the name alone claims how many there are."""
    found = 0
    for index in range(1, count + 1):
        if index not in indexes:
            yield index
            found += 1
            if found == 5:
                return


def _name(path: str) -> str:
    return path.rpartition("/")[2]
