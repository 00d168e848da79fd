"""The placeholders that descriptors may use, checked when a file is read.

A template that names something else, or something that would have no value at that place, is a
mistake in the file, and is told to whoever wrote it instead of to an engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from lemonade.catalog.backend import BackendSpec, RuntimeSpec
from lemonade.catalog.reading import bad
from lemonade.catalog.recipe import RecipeSpec

_PLACEHOLDER: Final = re.compile(r"\{([^{}\s\"':,]*)\}")
"""What looks like a placeholder. JSON in an argument does not: it has quotes or colons."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ALWAYS: Final = frozenset({"host", "port", "model"})
_OF_SOURCE: Final[Mapping[str, frozenset[str]]] = {
    "github": frozenset({"executable", "folder", "overlay"}),
    "pypi": frozenset({"python", "overlay"}),
    "system": frozenset({"executable", "overlay"}),
    "path": frozenset({"executable", "overlay"}),
}
_OF_ASSETS: Final = frozenset({"version", "number", "short", "gfx", "family", "sm", "os", "cpu"})
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")


def placeholders(template: str) -> tuple[str, ...]:
    """The names in braces, in order."""
    return tuple(_PLACEHOLDER.findall(template))


def check_recipe(spec: RecipeSpec, path: Path) -> None:
    """Look at every argument template of a recipe.

    Raises:
        BadDescriptor: one has a placeholder that means nothing there.
    """
    needed = spec.checkpoints[0]
    known = _ALWAYS | {f"checkpoint.{needed}"}
    places: list[tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]] = [
        (("argv", "always"), spec.argv.always, known),
        (("argv", "defaults"), spec.argv.defaults, known),
        (("argv", "context"), spec.argv.context, known | {"ctx_size"}),
        (("argv", "device"), spec.argv.device, known | {"device"}),
        (("environment",), tuple(spec.environment.values()), known | {"compile_cache"}),
    ]
    places += [
        (("argv", "for_mode", mode), words, known) for mode, words in spec.argv.for_mode.items()
    ]
    for role, words in spec.argv.for_checkpoint.items():
        if role not in spec.checkpoints:
            raise bad(
                path,
                ("argv", "for_checkpoint", role),
                f"the recipe has no such checkpoint, only {', '.join(spec.checkpoints)}",
            )
        places.append((("argv", "for_checkpoint", role), words, known | {f"checkpoint.{role}"}))
    if spec.adapters is not None:
        adapters = spec.adapters
        places += [
            (("adapters", "enable"), adapters.enable, frozenset({"rank"})),
            (("adapters", "each"), adapters.each, frozenset({"path"})),
        ]
        for key, body in (
            ("load_body", adapters.load_body),
            ("unload_body", adapters.unload_body),
        ):
            places.append((("adapters", key), tuple(body.values()), frozenset({"name", "path"})))
    for where, words, allowed in places:
        _check(path, where, words, allowed)
    _check_canary(spec, path)


def _check_canary(spec: RecipeSpec, path: Path) -> None:
    canary = spec.canary
    if canary is None:
        return
    if canary.mode not in spec.modes:
        raise bad(path, ("canary", "mode"), f"its models are {', '.join(spec.modes)} only")
    if canary.operation not in spec.upstream.operations:
        known = ", ".join(spec.upstream.operations)
        raise bad(path, ("canary", "operation"), f"the recipe serves {known} only")
    known_options = {option.name for option in spec.option}
    for name in canary.options:
        if name not in known_options:
            raise bad(path, ("canary", "options", name), "the recipe has no such option")


def check_backend(spec: BackendSpec, path: Path) -> None:
    """Look at every template of a backend.

    Raises:
        BadDescriptor: one has a placeholder that means nothing there.
    """
    allowed = _OF_SOURCE[spec.pin.source]
    _check(path, ("bundle", "argv"), spec.bundle.argv, allowed)
    _check(path, ("bundle", "smoke"), spec.bundle.smoke, allowed)
    more = {"runtime"} if spec.runtime is not None else set()
    for table, variables in (("environment", spec.environment), ("defaults", spec.defaults)):
        for name, value in variables.items():
            _check(path, (table, name), (value,), allowed | more)
    _check_runtimes(spec, path)
    _check_release(spec, path)
    values = (*spec.environment.values(), *spec.defaults.values())
    words = (*spec.bundle.argv, *spec.bundle.smoke, *values)
    overlay = overlay_beside(path)
    if any("overlay" in placeholders(word) for word in words) and not overlay.is_dir():
        raise bad(
            path, ("bundle", "argv"), f"{{overlay}} is the folder {overlay}, and there is none"
        )


def _check_runtimes(spec: BackendSpec, path: Path) -> None:
    places: list[tuple[tuple[str, ...], RuntimeSpec | None]] = [(("runtime",), spec.runtime)]
    places += [(("channels", name, "runtime"), one.runtime) for name, one in spec.channels.items()]
    for where, runtime in places:
        if runtime is None:
            continue
        if spec.pin.source != "github":
            raise bad(path, where, "it means something for the source github only")
        _check(path, (*where, "file"), (runtime.file,), frozenset({"version", "variant"}))
        if not runtime.file.endswith(_ARCHIVES):
            raise bad(path, (*where, "file"), f"it must end in one of {', '.join(_ARCHIVES)}")
        if not runtime.base_url.startswith("https://"):
            raise bad(path, (*where, "base_url"), "it must begin with https://")
        _check_digests(path, (*where, "sha256"), runtime.sha256)


def _check_digests(path: Path, where: tuple[str, ...], digests: Mapping[str, str]) -> None:
    for file, digest in digests.items():
        if not _DIGEST.fullmatch(digest):
            raise bad(path, (*where, file), "a SHA-256 has 64 digits of 0-9 and a-f")


def _check_release(spec: BackendSpec, path: Path) -> None:
    if spec.pin.source != "github":
        return
    _check(path, ("pin", "tag"), (spec.pin.tag,), _OF_ASSETS)
    for number, asset in enumerate(spec.pin.assets):
        where = ("pin", "assets", str(number), "name")
        _check(path, where, (asset.name,), _OF_ASSETS)
        if "/" in asset.name:
            raise bad(path, where, "it must be a name without /")
        if not asset.name.endswith(_ARCHIVES):
            raise bad(path, where, f"it must end in one of {', '.join(_ARCHIVES)}")
        if asset.parts and "*" in asset.name:
            raise bad(path, where, "what may be split must be named without *")
    _check_digests(path, ("pin", "sha256"), spec.pin.sha256)


def overlay_beside(path: Path) -> Path:
    """Where the files that belong to a backend's descriptor are."""
    return path.with_name(f"{path.stem}.overlay")


def _check(
    path: Path, where: tuple[str, ...], words: Iterable[str], allowed: frozenset[str]
) -> None:
    for unknown in _strangers(words, allowed):
        choice = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        raise bad(path, where, f"{{{unknown}}} means nothing there; it may hold {choice}")


def _strangers(words: Iterable[str], allowed: frozenset[str]) -> Iterator[str]:
    return (name for word in words for name in placeholders(word) if name not in allowed)
