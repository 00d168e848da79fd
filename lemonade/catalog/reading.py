"""Reading a file that a human wrote, and saying what is wrong with it: file, table, key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lemonade.core.errors import BadDescriptor

S = TypeVar("S", bound=BaseModel)

Check = Callable[[Path, bytes], None]
"""Looks at a file and its content before it is read, and raises if it may not be."""


def read_toml(path: Path, check: Check | None = None) -> dict[str, Any]:
    """The file's tables.

    Raises:
        BadDescriptor: it cannot be read or is not TOML; the message has line and column.
    """
    try:
        return tomllib.loads(_text(path, check))
    except tomllib.TOMLDecodeError as error:
        raise BadDescriptor(f"{path} is not valid TOML: {error}.", facts=_at(path)) from error


def read_object(path: Path, check: Check | None = None) -> dict[str, Any]:
    """The file's JSON object.

    Raises:
        BadDescriptor: it cannot be read, is not JSON, or holds something else.
    """
    try:
        value = json.loads(_text(path, check))
    except (ValueError, RecursionError) as error:
        raise BadDescriptor(f"{path} is not valid JSON: {error}.", facts=_at(path)) from error
    if not isinstance(value, dict):
        raise BadDescriptor(f"{path} must hold a JSON object.", facts=_at(path))
    return value


def validated(kind: type[S], data: object, path: Path, within: Sequence[str] = ()) -> S:
    """`data` as a spec; `within` is the path of keys that leads to it in the file.

    Raises:
        BadDescriptor: something is missing, superfluous or of the wrong type.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        complaints = [
            complaint(path, (*within, *item["loc"]), _reason(item["type"], item["msg"]))
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise BadDescriptor(" ".join(complaints[:3]), facts=_at(path)) from error


def complaint(path: Path, where: Sequence[str | int], reason: str) -> str:
    """One sentence: the file, the table in brackets, the key, and why."""
    if not where:
        return f"{path}: {reason}."
    words: list[str] = [f"{path}:"]
    table, key = list(where[:-1]), where[-1] if where else None
    if isinstance(key, int):  # the third word of a list: the list is what people know by name
        table, key = list(where[:-2]), f"{where[-2]}, number {key + 1}" if len(where) > 1 else None
    if table:
        words.append(f"in [{'.'.join(_step(step) for step in table)}]")
    if key is not None:
        words.append(f"key '{key}'")
    return " ".join(words) + f": {reason}."


def bad(path: Path, where: Sequence[str | int], reason: str) -> BadDescriptor:
    """The error to raise for one complaint."""
    return BadDescriptor(complaint(path, where, reason), facts=_at(path))


def _step(step: str | int) -> str:
    return f"#{step + 1}" if isinstance(step, int) else step


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such key"
    if kind == "missing":
        return "it is missing"
    message = message.removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]


def _text(path: Path, check: Check | None) -> str:
    try:
        content = path.read_bytes()  # once: what is judged is what is read
        if check is not None:
            check(path, content)
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadDescriptor(f"{path} cannot be read: {reason}.", facts=_at(path)) from error


def _at(path: Path) -> dict[str, object]:
    return {"file": str(path)}
