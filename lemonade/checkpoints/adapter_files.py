"""What lies where an adapter is said to be: whether it is one, and for which model it was made.

Only headers are read. What they do not say (whether each matrix has the size of the model's) the
engine finds out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from lemonade.checkpoints.gguf_header import general_texts, is_adapter, is_gguf_file
from lemonade.core.errors import BadAdapter
from lemonade.core.records import dataclass
from lemonade.planning.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_MOST_BYTES: Final = 1 << 20
"""Of a configuration."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """An adapter on this disk.

    Attributes:
        rank: of its matrices; 0 when it does not say.
        made_for: the model it was made for, as it names it; empty when it does not.
        stamp: changes when its weights are written anew.
    """

    rank: int
    made_for: str
    stamp: tuple[int, int]


def inspect_adapter(
    path: Path, kind: Literal["gguf", "peft"], base: Path | None = None
) -> AdapterFacts:
    """Look at an adapter. Blocks.

    Args:
        path: absolute; a file for `gguf`, a folder for `peft`.
        kind: what the engine takes.
        base: the model's file, whose architecture it must have; `None` if it is not here.

    Raises:
        BadAdapter: it is not there, not of that kind, or for another architecture.
    """
    try:
        return _gguf(path, base) if kind == "gguf" else _peft(path)
    except OSError as error:
        raise BadAdapter(
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Give the path of an adapter on the server's machine.",
            facts={"path": str(path)},
        ) from error


def adapter_stamp(path: Path) -> tuple[int, int] | None:
    """The stamp alone; `None` where nothing is. Blocks for a moment."""
    files = (*(path / name for name in ADAPTER_WEIGHTS), path)
    try:
        return next((_stamp(file) for file in files if file.is_file()), None)
    except OSError:
        return None


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


def _gguf(path: Path, base: Path | None) -> AdapterFacts:
    if path.is_dir():
        raise _bad(path, "is a folder; this engine takes adapters as GGUF files")
    if not is_gguf_file(path):
        raise _bad(path, "is no GGUF file")
    texts = general_texts(path)
    if not is_adapter(path):
        raise _bad(path, "is a GGUF file, but not of an adapter")
    if texts.get("adapter.type", "lora") != "lora":
        raise _bad(path, f"is an adapter of the kind '{texts['adapter.type'][:40]}', not lora")
    own = texts.get("general.architecture", "")
    wanted = ""
    if base is not None and base.is_file():
        wanted = general_texts(base).get("general.architecture", "")
    if own and wanted and own != wanted:
        raise _bad(path, f"was made for a model of the architecture '{own[:40]}', not '{wanted}'")
    made_for = texts.get("general.base_model.0.name", "")
    return AdapterFacts(0, made_for, _stamp(path))


def _peft(path: Path) -> AdapterFacts:
    if not path.is_dir():
        path.stat()  # what is not there at all shall be said to be just that
        raise _bad(
            path, f"is no folder; this engine takes adapters as folders with {ADAPTER_CONFIG}"
        )
    config = path / ADAPTER_CONFIG
    if not config.is_file():
        raise _bad(path, f"has no {ADAPTER_CONFIG}")
    weights = next((path / name for name in ADAPTER_WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise _bad(path, f"has no {ADAPTER_WEIGHTS[0]}")
    fields = _fields(config)
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise _bad(path, f"is an adapter of the kind {json.dumps(kind)[:40]}, not LORA")
    rank = fields.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise _bad(config, f"gives no rank: 'r' is {json.dumps(rank)[:40]}")
    made_for = fields.get("base_model_name_or_path")
    return AdapterFacts(rank, made_for if isinstance(made_for, str) else "", _stamp(weights))


def _fields(config: Path) -> dict[str, Any]:
    with config.open("rb") as file:
        raw = file.read(_MOST_BYTES)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(config, f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _bad(config, "does not hold a JSON object")
    return value


def _bad(path: Path, what: str) -> BadAdapter:
    return BadAdapter(
        f"{path} {what}.",
        remedy="Give the path of an adapter that was made for this model.",
        facts={"path": str(path)},
    )
