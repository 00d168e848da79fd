"""Which models run on which version of a backend, for answers that have to say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import Locked
from lemonade.core.inference import JsonObject
from lemonade.gateway.parts import Parts
from lemonade.residency import Resident


def models_on(parts: Parts, root: Path) -> list[str]:
    """The models of this server whose engines run the version in a folder."""
    return sorted(resident.served_name for resident in _where(parts, lambda one: one == root))


def still_running(parts: Parts, backend: BackendSpec, active: Bundle | None) -> list[JsonObject]:
    """The models that go on with another version than the one that is used from now on."""
    folder = parts.bundles.folder(backend)
    here = {folder, *(one.folder for one in parts.bundles.legacy(backend))}
    found = _where(
        parts,
        lambda root: (
            (root in here or root.parent == folder) and (active is None or root != active.root)
        ),
    )
    return [
        {"model_name": one.served_name, "version": one.instance.spec.labels.get("version", "")}
        for one in found
        if one.instance is not None
    ]


def naming_models(parts: Parts, error: Locked) -> Locked:
    """The same error, with the models of this server that run the version."""
    path = error.facts.get("path")
    names = models_on(parts, Path(str(path))) if path else []
    if not names:
        return error
    return Locked(
        f"{error.message.removesuffix('.')}: {', '.join(names)}.",
        remedy=f"`lemonade unload {names[0]}`, and try again.",
        facts={**error.facts, "models": names},
    )


def _where(parts: Parts, wanted: Callable[[Path], bool]) -> list[Resident]:
    return [
        resident
        for resident in parts.pool.residents()
        if resident.instance is not None and wanted(resident.instance.spec.executable_root)
    ]
