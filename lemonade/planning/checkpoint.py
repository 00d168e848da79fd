"""Which files of which repository a checkpoint means.

Pure: it is given a listing (of a hub, or of a snapshot on this disk) and answers with a frozen
`CheckpointPlan`, or with an error that lists what could have been meant.

A checkpoint is `owner/repo`, `owner/repo:variant`, the address of either on a hub's web site, or
an absolute path. What a variant may be depends on the recipe: `gguf` takes the name of a
quantisation, a file, the end of a file name, or a folder; `repository` takes a file or a folder,
and everything where there is no variant. Of an adapter (`peft`, `gguf-adapter`) it is the adapter
alone, see `adapter_files`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from lemonade.catalog import from_page
from lemonade.core.errors import NotInRepository
from lemonade.core.records import dataclass
from lemonade.planning.adapter_files import only_gguf, select_peft
from lemonade.planning.gguf import (
    RepoFile,
    Variant,
    drafts,
    enumerate_variants,
    family_of,
    is_gguf,
    is_weights,
    projectors,
)

__all__ = [
    "ADAPTER_KINDS",
    "COMPANIONS",
    "LAZY_ROLES",
    "CheckpointPlan",
    "FileKind",
    "RepoFile",
    "RepoListing",
    "Variant",
    "drafts",
    "enumerate_variants",
    "plan_checkpoint",
    "projectors",
    "registry_of",
    "select_files",
    "split_checkpoint",
]

FileKind = Literal["gguf", "repository", "gguf-adapter", "peft"]
"""How a variant selects files; see the module's docstring."""

ADAPTER_KINDS: Final[frozenset[FileKind]] = frozenset({"gguf-adapter", "peft"})

COMPANIONS: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")
"""Small files at the root that come along with a GGUF variant where they exist."""

LAZY_ROLES: Final = frozenset({"npu_cache"})
"""Roles that are no part of a download: an engine fetches them itself when it needs them."""

_SINGLE_FILES: Final = (".gguf", ".bin")
_NOT_CONTENT: Final = frozenset({".gitattributes", ".gitignore"})
_LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class RepoListing:
    """A repository at one revision: all files are of the same commit."""

    repository: str
    revision: str
    files: tuple[RepoFile, ...]


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """What one role of a model needs.

    Attributes:
        repository: `owner/repo`.
        revision: the commit all files are taken from.
        role: `main`, `mmproj`, ...
        variant: what followed the colon; may be empty.
        files: everything to fetch, in order; companions last.
        essential: paths without which the role is not complete.
        primary: path of the file an engine is given; empty when it is given the whole folder.
        noted: whether the choice is written down. An adapter's is not: its files have fixed names,
            and what is noted of its repository is for a model that is in it too.
    """

    repository: str
    revision: str
    role: str
    variant: str
    files: tuple[RepoFile, ...]
    essential: tuple[str, ...]
    primary: str
    noted: bool = True

    @property
    def size_bytes(self) -> int:
        """Of all files, as far as the listing says."""
        return sum(file.size_bytes for file in self.files)


def registry_of(text: str) -> str:
    """The registry whose web page it is: `huggingface`, `modelscope`, or empty for neither."""
    return from_page(text.strip())[1] or ""


def split_checkpoint(text: str) -> tuple[str, str]:
    """Repository and variant: `owner/repo:Q4_K_M` is (`owner/repo`, `Q4_K_M`).

    A page on a registry's web site counts as the repository it shows. An absolute path is never
    split.
    """
    text = text.strip()
    if text.startswith("/"):
        return (text, "")
    repository, _, variant = from_page(text)[0].partition(":")
    return (repository.strip(), variant.strip())


def plan_checkpoint(
    role: str, checkpoint: str, listing: RepoListing, kind: FileKind
) -> CheckpointPlan:
    """Choose the files of a role.

    Raises:
        NotInRepository: the variant is unknown or ambiguous, or an auxiliary role names no file.
    """
    _, variant = split_checkpoint(checkpoint)
    if role != "main":
        chosen = _auxiliary(role, checkpoint, variant, listing)
    else:
        chosen = select_files(listing.files, variant, kind=kind, where=listing.repository)
    companions: tuple[RepoFile, ...] = ()
    if role == "main" and kind == "gguf":
        chosen_paths = {file.path for file in chosen}
        companions = tuple(
            file
            for file in listing.files
            if file.path in COMPANIONS and file.path not in chosen_paths
        )
    return CheckpointPlan(
        repository=listing.repository,
        revision=listing.revision,
        role=role,
        variant=variant,
        files=chosen + companions,
        essential=tuple(file.path for file in chosen),
        primary=primary_of([file.path for file in chosen], variant, kind),
        noted=kind not in ADAPTER_KINDS,
    )


def primary_of(paths: Sequence[str], variant: str, kind: FileKind) -> str:
    """The file among the selected ones that an engine is given; empty means their folder."""
    if kind == "peft":
        return ""
    if kind == "repository":
        return paths[0] if len(paths) == 1 and variant else ""
    # A projector may sort before the model it belongs to.
    return next((path for path in paths if is_weights(path)), paths[0] if paths else "")


def select_files(
    files: Sequence[RepoFile], variant: str, *, kind: FileKind, where: str
) -> tuple[RepoFile, ...]:
    """The files a variant of the role `main` means, the primary one first among its kind.

    Args:
        files: all files there are.
        variant: what followed the colon.
        kind: how it selects.
        where: the repository's name, for errors.

    Raises:
        NotInRepository: nothing, or more than one thing, is called that. `facts["variants"]`
            lists what there is.
    """
    by_path = {file.path: file for file in files}
    return tuple(by_path[path] for path in _SELECT[kind](by_path, variant, where))


def _select_any(files: dict[str, RepoFile], variant: str, where: str) -> Sequence[str]:
    paths = sorted(files)
    if variant in ("", "*"):
        return [path for path in paths if path not in _NOT_CONTENT]
    if variant in files:
        return family_of(variant, paths)
    inside = [path for path in paths if path.startswith(f"{variant.rstrip('/')}/")]
    if inside:
        return inside
    raise _nothing_called(variant, where, paths)


def _select_gguf(files: dict[str, RepoFile], variant: str, where: str) -> Sequence[str]:
    paths = sorted(path for path in files if is_gguf(path))
    if variant == "*" and paths:
        return paths
    if variant.lower().endswith(_SINGLE_FILES):
        if variant in files:
            return family_of(variant, paths)
        raise _nothing_called(variant, where, paths)
    variants = enumerate_variants(files.values())
    if not variant:
        return _only_variant(variants, where)
    named = [v for v in variants if v.name.lower() == variant.lower()]
    if len(named) == 1:
        return named[0].files
    if len(named) > 1:
        raise _ambiguous(variant, where, [v.primary for v in named])
    ending = f"{variant}.gguf".lower()
    ending_so = [path for path in paths if is_weights(path) and path.lower().endswith(ending)]
    if len(ending_so) == 1:
        return family_of(ending_so[0], paths)
    if len(ending_so) > 1:
        raise _ambiguous(variant, where, ending_so)
    if inside := _in_folder(variant, paths, where):
        return inside
    raise _nothing_called(variant, where, [v.name for v in variants])


def _select_gguf_adapter(files: dict[str, RepoFile], variant: str, where: str) -> Sequence[str]:
    return _select_gguf(files, variant, where) if variant else only_gguf(files, where)


_SELECT: Final[Mapping[FileKind, Callable[[dict[str, RepoFile], str, str], Sequence[str]]]] = {
    "gguf": _select_gguf,
    "repository": _select_any,
    "gguf-adapter": _select_gguf_adapter,
    "peft": select_peft,
}


def _only_variant(variants: Sequence[Variant], where: str) -> Sequence[str]:
    """The files of a repository that offers one thing, so that nobody has to name it."""
    if len(variants) == 1:
        return variants[0].files
    if not variants:
        raise NotInRepository(
            f"{where} holds no GGUF model.",
            remedy="Choose a repository with .gguf files, or another recipe.",
            facts={"repository": where, "variants": []},
        )
    names = [variant.name for variant in variants]
    raise NotInRepository(
        f"{where} holds {len(names)} variants, and the checkpoint names none.",
        remedy=f"Write {where}:{names[0]}, or another of: {_list(names)}.",
        facts={"repository": where, "variants": names},
    )


def _in_folder(variant: str, paths: Sequence[str], where: str) -> Sequence[str]:
    folder = variant.rstrip("/").lower()
    inside = [path for path in paths if path.lower().startswith(f"{folder}/")]
    if inside:
        return inside
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    matching = sorted(t for t in tops if re.search(rf"[-_]{re.escape(folder)}\Z", t.lower()))
    if len(matching) > 1:
        raise _ambiguous(variant, where, matching)
    return [path for path in paths if matching and path.startswith(f"{matching[0]}/")]


def _auxiliary(
    role: str, checkpoint: str, variant: str, listing: RepoListing
) -> tuple[RepoFile, ...]:
    if not variant:
        raise NotInRepository(
            f"The {role} checkpoint '{checkpoint}' names no file.",
            remedy=f"Write {listing.repository}:path/of/the/file.",
            facts={"repository": listing.repository, "role": role},
        )
    by_path = {file.path: file for file in listing.files}
    if variant not in by_path:
        alike = [path for path in by_path if path.rpartition(".")[2] == variant.rpartition(".")[2]]
        raise _nothing_called(variant, listing.repository, alike or sorted(by_path))
    return tuple(by_path[path] for path in family_of(variant, by_path))


def _nothing_called(variant: str, where: str, names: Sequence[str]) -> NotInRepository:
    return NotInRepository(
        f"{where} has nothing called '{variant}'.",
        remedy=f"There is: {_list(names)}." if names else "It has no files of that kind.",
        facts={"repository": where, "variant": variant, "variants": list(names)},
    )


def _ambiguous(variant: str, where: str, names: Sequence[str]) -> NotInRepository:
    return NotInRepository(
        f"'{variant}' could be several files of {where}.",
        remedy=f"Name one of them: {_list(names)}.",
        facts={"repository": where, "variant": variant, "variants": list(names)},
    )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
