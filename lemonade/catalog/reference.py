"""The table of all shipped backends, made from their own files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lemonade.catalog.backend import BackendSpec, RunsOnSpec
from lemonade.catalog.catalog import Catalog
from lemonade.catalog.sources import shipped

_SYSTEMS: Final = {"linux": "Linux", "windows": "Windows", "macos": "macOS"}
_ANY_OF: Final = {"gfx*": "any of AMD's", "sm_*": "any of NVIDIA's"}


def render_reference() -> str:
    """The generated block of docs/backends.md: a table in Markdown, the preferred first."""
    catalog = Catalog.load([shipped()])
    lines = ["| backend | what it is | version | where it runs |", "|---|---|---|---|"]
    for recipe in catalog.recipes.values():
        lines += [_row(spec) for spec in catalog.backends_of(recipe.id)]
    return "\n".join(lines) + "\n"


def _row(spec: BackendSpec) -> str:
    version = spec.pin.version if spec.pin.fetched else "yours"
    places: dict[str, list[str]] = {}
    for row in spec.runs_on:
        systems = (_SYSTEMS.get(name, name) for name in row.os)
        places.setdefault(_conditions(row), []).extend(systems)
    where = "; ".join(f"{_listed(systems)}{rest}" for rest, systems in places.items())
    return f"| `{spec.id}` | {spec.title} | {version} | {where} |"


def _conditions(row: RunsOnSpec) -> str:
    """One row of the support matrix in words, without the systems."""
    parts = [""]
    if row.cpu:
        parts.append(f"on {_listed(row.cpu)}")
    if row.cpu_features:
        parts.append(f"with {', '.join(row.cpu_features)}")
    if row.gpu:
        parts.append(f"with a GPU: {', '.join(_ANY_OF.get(name, name) for name in row.gpu)}")
    if row.npu:
        parts.append(f"with an NPU: {', '.join(row.npu)}")
    if not row.automatic:
        parts.append("if it is named or installed")
    return " ".join(parts)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names) or "any system"
