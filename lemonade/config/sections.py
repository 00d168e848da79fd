"""The rules of a recipe's section: which keys it has and what they may be.

A section's keys are those its recipe gives a default, `backend` if clients may choose one, and for
each variant `<variant>_args` and `<variant>_bin`. What a key may be follows from its name, and
for others from the type of the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lemonade.core.errors import BadSetting
from lemonade.core.near import did_you_mean, near_names
from lemonade.core.sections import SectionSpec

AUTO: Final = "auto"
BUILTIN: Final = "builtin"

MEANINGS: Final = {
    "backend": "Variant that runs the models; `auto` picks the best that this machine supports.",
    "args": "Arguments for the engine, as a shell would read them.",
    "<variant>_args": "Used on that variant instead of `args`, unless empty.",
    "<variant>_bin": "What runs on that variant: `builtin` is the pinned version, an absolute "
    "path that executable (or the folder it is in), which is never fetched or changed, the tag "
    "of a release that one, and `latest` the newest one that its publisher has for this machine. "
    "Models that run on it move to it at once.",
    "device": "Devices to offload to, as the engine names them.",
    "prefer_system": "Whether an engine that is on this machine already is preferred.",
    "steps, width, height": "For image models: whole numbers above 0.",
    "cfg_scale": "For image models: a number above 0.",
    "lora_dir, upscaler_dir": "Absolute path of a folder, or empty.",
}
"""What people are told about the keys, by name."""

_STRINGS: Final = ("args", "device")
_BOOLEANS: Final = ("prefer_system",)
_COUNTS: Final = ("steps", "width", "height")
_NUMBERS: Final = ("cfg_scale",)
_FOLDERS: Final = ("lora_dir", "upscaler_dir")
_ARGS: Final = "_args"
_BIN: Final = "_bin"


def section_defaults(spec: SectionSpec) -> dict[str, object]:
    """Every key the section has, and its default."""
    defaults: dict[str, object] = {"backend": AUTO} if spec.selectable else {}
    defaults.update(spec.defaults)
    variants = [_word(variant) for variant in spec.variants]
    for key in spec.defaults:  # a recipe may know variants that nobody has declared yet
        variants += [key.removesuffix(end) for end in (_ARGS, _BIN) if key.endswith(end)]
    for variant in sorted(variants):
        defaults.setdefault(f"{variant}{_ARGS}", "")
        defaults.setdefault(f"{variant}{_BIN}", BUILTIN)
    return defaults


def check_value(spec: SectionSpec, key: str, value: object, where: str) -> None:
    """Look at one value.

    Args:
        spec: the section.
        key: one of its keys.
        value: what is to be set.
        where: a phrase that says who said so, for the message.

    Raises:
        BadSetting: it cannot be.
    """
    problem = _problem(spec, key, value)
    if problem:
        raise BadSetting(
            f"'{spec.name}.{key}'{where} cannot be {shown(value)}: {problem}.",
            remedy=_remedy(spec, key, value),
            facts={"key": f"{spec.name}.{key}"},
        )


def check_paths(name: str, values: Mapping[str, Any]) -> None:
    """Look at what the values name on this disk; only asked when somebody sets them.

    Raises:
        BadSetting: an executable or a folder is not there.
    """
    for key, value in values.items():
        path = Path(value) if isinstance(value, str) and value.startswith("/") else None
        if path is not None and (key.endswith(_BIN) or key in _FOLDERS) and not _is_there(path):
            raise BadSetting(
                f"'{name}.{key}' cannot be {shown(value)}: there is nothing at that path.",
                remedy="Give the path of an executable or of the folder it is in.",
                facts={"key": f"{name}.{key}"},
            )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long, or we may not look
        return False


def pin_key(variant: str) -> str:
    """The key that pins a variant's executable."""
    return f"{_word(variant)}{_BIN}"


def shown(value: object) -> str:
    """A value in a message: short, and as JSON writers know it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _problem(spec: SectionSpec, key: str, value: object) -> str:
    if key == "backend":
        return _backend_problem(spec, value)
    if key in _BOOLEANS:
        return "" if isinstance(value, bool) else "it must be true or false"
    if key in _COUNTS:
        counts = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return "" if counts else "it must be a whole number above 0"
    if key in _NUMBERS:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        return "" if number else "it must be a number above 0"
    if key in _FOLDERS:
        folder = isinstance(value, str) and (not value or value.startswith("/"))
        return "" if folder else "it must be an absolute path or empty"
    if key in _STRINGS or key.endswith((_ARGS, _BIN)):
        return "" if isinstance(value, str) else "it must be a string"
    return _type_problem(section_defaults(spec).get(key, ""), value)


def _type_problem(default: object, value: object) -> str:
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "it must be true or false"
    if isinstance(value, bool):
        return "it must not be true or false"
    if isinstance(default, int):
        return "" if isinstance(value, int) else "it must be a whole number"
    if isinstance(default, float):
        return "" if isinstance(value, (int, float)) else "it must be a number"
    return "" if isinstance(value, str) else "it must be a string"


def _backend_problem(spec: SectionSpec, value: object) -> str:
    if not isinstance(value, str):
        return "it must be a string"
    if value not in ("", AUTO, *spec.variants):
        return "this version has no such backend"
    return ""


def _remedy(spec: SectionSpec, key: str, value: object) -> str:
    if key != "backend":
        return ""
    near = near_names(str(value), spec.variants)
    return did_you_mean(near) or f"It may be {', '.join((AUTO, *spec.variants))}."


def _word(variant: str) -> str:
    """A variant as part of a key: `rocm-stable` and `rocm-nightly` share `rocm`."""
    return variant.removesuffix("-stable").removesuffix("-nightly").replace("-", "_")
