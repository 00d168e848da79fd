"""What is printed: lines, tables, JSON; coloured on a terminal, plain everywhere else.

The plain shapes are a contract that scripts read. Nothing here asks the server anything.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import click

from lemonade.core.records import dataclass

_CONTROLS: Final = dict.fromkeys(
    [*(code for code in range(32) if code not in {9, 10}), *range(127, 160)]
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        width: at least that many characters in the plain form, the gap included.
        right: align to the right within that many characters; 0 for left.
    """

    title: str
    width: int = 0
    right: int = 0


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person looks at the stream (the standard output unless named)."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def out(text: str = "") -> None:
    """One line of the result."""
    click.echo(text)


def note(text: str) -> None:
    """One line about the work; never part of the result."""
    click.echo(text, err=True)


def style(text: str, *, err: bool = False, bold: bool = False, dim: bool = False) -> str:
    """`text` as a terminal shows it; unchanged without one, and if NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or not is_terminal(sys.stderr if err else sys.stdout):
        return text
    return click.style(text, bold=bold or None, dim=dim or None)


def harmless(text: str) -> str:
    """`text` from a model without the characters that steer a terminal."""
    return text.translate(_CONTROLS)


def write_json(value: object, *, compact: bool = False) -> None:
    """A value for scripts."""
    if compact:
        out(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    else:
        out(json.dumps(value, indent=4, ensure_ascii=False))


def write_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    rule: int = 100,
    closed: bool = False,
) -> None:
    """A table.

    Args:
        columns: the last one takes what is left.
        rows: one string for each column.
        rule: length of the dashed line under the heading, at least.
        closed: draw that line under the last row too.
    """
    if is_terminal():
        _write_rich(columns, rows)
        return
    widths = [
        max([column.width, len(column.title) + 1, *(len(row[at]) + 1 for row in rows)])
        for at, column in enumerate(columns)
    ]
    lines = [
        "".join(_cell(row[at], column, widths[at]) for at, column in enumerate(columns)).rstrip()
        for row in rows
    ]
    head = "".join(c.title.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip()
    dashes = "-" * max([rule, len(head), *(len(line) for line in lines)])
    for line in [head, dashes, *lines, *([dashes] if closed else [])]:
        out(line)


def _cell(text: str, column: Column, width: int) -> str:
    return text.rjust(column.right).ljust(width)


def _write_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column.title, justify="right" if column.right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
