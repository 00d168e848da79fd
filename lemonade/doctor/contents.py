"""What goes into a support archive, before secrets are taken out of it. Reads and changes nothing.

Documents are JSON values, logs the last part of a file. The archive takes secrets out of both, so
nothing here has to think of them; but what nobody needs is not collected at all: no prompts, no
answers, no model files, no other variables of the environment than those of engines.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lemonade.config import CONFIG_FILE
from lemonade.doctor.finding import Report
from lemonade.doctor.settings import DOCUMENTS
from lemonade.doctor.surroundings import Surroundings
from lemonade.installer import inspect_bundles
from lemonade.planning import judge
from lemonade.supervisor import inspect_ledger

TAIL_BYTES: Final = 256 * 1024
"""Of each log."""

MOST_LOGS: Final = 40
"""The newest ones."""

_PREFIXES: Final = (
    "LEMONADE", "HF_", "HUGGING", "HIP_", "HSA_", "ROCM", "ROCR", "CUDA_", "NVIDIA_", "GPU_",
    "GGML_", "OMP_", "PIP_", "PYTHON", "LD_", "XDG_", "SSL_CERT", "VK_", "GITHUB_",
)  # fmt: skip
_NAMES: Final = frozenset({"path", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "lang"})


def documents(surroundings: Surroundings, report: Report) -> Iterator[tuple[str, Any]]:
    """Name and value of each JSON document."""
    here = surroundings
    yield "doctor.json", report.as_json()
    yield "hardware.json", _plain(here.machine)
    yield "backends.json", _backends(here)
    yield "settings.json", here.config.settings.model_dump(mode="json")
    for name in (CONFIG_FILE, *DOCUMENTS):
        document = _json(here.directories.config / name)
        if document is not None:
            yield f"config/{name}", document
    yield (
        "catalog.json",
        {
            "folders": [str(root) for root in here.catalog.roots],
            "own": [str(path) for path in here.catalog.overlays],
            "broken": [str(error) for error in here.catalog.broken],
        },
    )
    yield "bundles.json", _or_reason(lambda: _plain(inspect_bundles(here.bundles)))
    yield "children.json", _or_reason(lambda: _children(here))
    yield "environment.json", {"variables": _variables(here.environ)}
    yield (
        "directories.json",
        {
            **{name: str(getattr(here.directories, name)) for name in here.directories.__slots__},
            "models": str(here.hub.cache_dir),
        },
    )


def logs(surroundings: Surroundings) -> Iterator[tuple[str, str]]:
    """Name and last part of each log, of a server in the background and of the engines."""
    folders = (("server", surroundings.directories.runtime), ("engines", surroundings.logs))
    found = [
        (path, f"logs/{kind}/{path.name}")
        for kind, folder in folders
        for path in (folder.iterdir() if folder.is_dir() else ())
        if ".log" in path.name and path.is_file()
    ]
    found.sort(key=lambda pair: pair[0].stat().st_mtime, reverse=True)
    for path, name in found[:MOST_LOGS]:
        yield name, tail_of(path)


def tail_of(path: Path, limit: int = TAIL_BYTES) -> str:
    """The last whole lines of a file; half a line could be half a secret, which nobody knows."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError as error:
        return f"(it cannot be read: {error.strerror or error})\n"
    text = data.decode("utf-8", "replace")
    return text.partition("\n")[2] if size > limit else text


def _backends(here: Surroundings) -> list[dict[str, Any]]:
    """The verdict on each, as `system-info` has it."""
    if here.catalog.catalog is None:
        return []
    rows = []
    for spec in here.catalog.catalog.backends.values():
        verdict = judge(spec, here.machine)
        rows.append(
            {
                "id": spec.id,
                "source": spec.pin.source,
                "version": spec.pin.version,
                "supported": verdict.supported,
                "rule": verdict.rule,
                "reason": verdict.reason,
                "evidence": [str(one) for one in verdict.evidence],
                "fix": verdict.fix,
            }
        )
    return rows


def _children(here: Surroundings) -> list[dict[str, Any]]:
    """Each record with what is true of it, and the command lines of what is alive."""
    return [
        {
            **_plain(entry),
            "record": _json(entry.file),
            "command_lines": {
                str(one.pid): {"argv": _argv(Path(f"/proc/{one.pid}/cmdline"))}
                for one in entry.processes
            },
        }
        for entry in inspect_ledger(here.ledger)
    ]


def _argv(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.upper().startswith(_PREFIXES) or name.lower() in _NAMES
    }


def _json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """The document; what is wrong with it as a text; `None` if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return {"error": str(error)}


def _or_reason(look: Any) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return look()
    except OSError as error:
        return {"error": str(error)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Dataclasses and paths as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(item) for item in value]
        return sorted(items) if isinstance(value, (set, frozenset)) else items
    return str(value) if isinstance(value, Path) else value
