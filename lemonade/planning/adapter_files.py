"""Which files of a repository are an adapter: those that an engine reads, and nothing beside them.

Pure, like `checkpoint`, whose other half it is. Repositories of adapters hold a good deal more:
training states, earlier checkpoints in folders, sometimes the whole model they were made from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from lemonade.core.errors import NotInRepository
from lemonade.planning.gguf import family_of, is_gguf

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
"""The first that is there is read: vLLM looks in this order (0.32,
`LoRAModel.from_local_checkpoint`), and reads no tokenizer of an adapter's."""

_LISTED: Final = 20


def select_peft(paths: Collection[str], variant: str, where: str) -> Sequence[str]:
    """Configuration and weights of the PEFT adapter in a folder, or at the root.

    Args:
        paths: all files there are.
        variant: the folder; empty for the root.
        where: the repository's name, for errors.

    Raises:
        NotInRepository: there is none. `facts["variants"]` lists the folders that hold one.
    """
    folder = variant.strip("/")
    found = _in_folder(paths, folder)
    if found:
        return found
    folders = sorted(path.rpartition("/")[0] for path in paths if _is_config(path))
    folders = [one for one in folders if one and _in_folder(paths, one)]
    place = f"{where} has no adapter in '{folder}'" if folder else f"{where} has no adapter"
    lacking = f"{ADAPTER_CONFIG} with {ADAPTER_WEIGHTS[0]}"
    remedy = f"Choose a repository with {lacking}."
    if folders:
        lacking += " at its root" if not folder else ""
        remedy = f"Write {where}:{folders[0]}" + (
            f", or another of: {_list(folders)}." if folders[1:] else "."
        )
    elif any(map(is_gguf, paths)):
        remedy += " This engine takes no GGUF files as adapters."
    raise NotInRepository(
        f"{place}: there is no {lacking}.",
        remedy=remedy,
        facts={"repository": where, "variant": variant, "variants": folders},
    )


def only_gguf(paths: Collection[str], where: str) -> Sequence[str]:
    """The GGUF file of a repository that has one, so that nobody has to name it.

    Raises:
        NotInRepository: there is none, or more than one. `facts["variants"]` lists them.
    """
    files = sorted(filter(is_gguf, paths))
    if not files:
        remedy = "Choose a repository with the adapter as a .gguf file."
        if any(map(_is_config, paths)):
            remedy = (
                "It has one for PEFT, which this engine does not take: llama.cpp's "
                "convert_lora_to_gguf.py makes a GGUF file of it."
            )
        raise NotInRepository(
            f"{where} has no adapter: there is no .gguf file.",
            remedy=remedy,
            facts={"repository": where, "variants": []},
        )
    family = family_of(files[0], files)
    if len(family) < len(files):
        raise NotInRepository(
            f"{where} has {len(files)} GGUF files, and the adapter's name names none.",
            remedy=f"Write {where}:{files[0]}, or another of: {_list(files)}.",
            facts={"repository": where, "variants": files},
        )
    return family


def _in_folder(paths: Collection[str], folder: str) -> tuple[str, ...]:
    """An adapter's two files; none if either is lacking."""
    inside = f"{folder}/" if folder else ""
    config = f"{inside}{ADAPTER_CONFIG}"
    weights = next((inside + one for one in ADAPTER_WEIGHTS if inside + one in paths), None)
    return () if weights is None or config not in paths else (config, weights)


def _is_config(path: str) -> bool:
    return path.rpartition("/")[2] == ADAPTER_CONFIG


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
