"""Small files of the kernel, read one value at a time; what cannot be read is empty or 0."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """What the file says, without the blanks around it; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int:
    """A number as sysfs writes them (`0x1002`, `12`); 0 if the file cannot be read."""
    try:
        return int(path.read_text().strip(), 0)
    except (OSError, ValueError):
        return 0


def shown(root: Path, path: Path) -> str:
    """The path as the machine under `root` names it."""
    return f"/{path.relative_to(root)}" if path.is_relative_to(root) else str(path)
