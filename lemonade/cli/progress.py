"""How a pull or an installation looks while it runs: bars on a terminal, lines elsewhere.

Follows the stream to its end. Whatever interrupts it closes the connection, and the server stops a
transfer that nobody follows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final, cast

import click

from lemonade.cli.render import is_terminal
from lemonade.core.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_STEP: Final = 10  # percent between two lines of the plain form
_NAME_WIDTH: Final = 31
_BARS: Final = 8  # on a terminal at the same time
_SPEED_AFTER: Final = 0.5  # seconds before a speed means something


def follow(transfer: Iterator[Progress], *, err: bool = False) -> str:
    """Show a transfer until it is complete; returns what the server says of it, if anything.

    Args:
        transfer: from the client; closed in any case.
        err: show it on the standard error output, because the other one is for the answer.

    Raises:
        LemonadeError: the transfer failed; the message says why.
    """
    said: list[str] = []
    with closing(cast("Generator[Progress, None, None]", transfer)) as steps:
        if is_terminal(sys.stderr if err else sys.stdout):
            _show_bars(_overheard(steps, said), err=err)
        else:
            _show_lines(_overheard(steps, said), err=err)
    return " ".join(said)


def _overheard(steps: Iterator[Progress], said: list[str]) -> Iterator[Progress]:
    for step in steps:
        if step.message:
            said.append(step.message)
        yield step


def _show_lines(steps: Iterator[Progress], *, err: bool) -> None:
    def say(text: str) -> None:
        click.echo(text, err=err)

    current: tuple[int, str] | None = None
    told, shown, began, had = False, 0, 0.0, 0
    for step in steps:
        if _says_nothing(step, current):
            continue
        if step.total_download_size and not told:
            told = True
            files = "1 file" if step.total_files == 1 else f"{step.total_files} files"
            # Not known from the start, it is an installation's, whose steps are no files.
            counted = f", {files}" if current is None else ""
            say(f"Total: {_amount(step.total_download_size)}{counted}")
        if (step.file_index, step.file) != current:
            current = (step.file_index, step.file)
            shown, began, had = 0, time.monotonic(), step.bytes_downloaded
            say(_headline(step))
        if step.bytes_total and step.percent >= shown + _STEP and not _was_there(step):
            shown = step.percent - step.percent % _STEP
            speed = _speed(step.bytes_downloaded - had, time.monotonic() - began)
            done, whole = step.bytes_downloaded / 1e6, step.bytes_total / 1e6
            say(f"  Progress: {step.percent}% ({done:.1f}/{whole:.1f} MB){speed}")


def _says_nothing(step: Progress, current: tuple[int, str] | None) -> bool:
    """The end may name the whole rather than a file; that is no file of its own."""
    if not step.file or (current is None and step.complete and not step.bytes_total):
        return True
    new = current is not None and (step.file_index, step.file) != current
    back = current is not None and step.file_index < current[0]
    return new and not step.bytes_total and (step.complete or back)


def _headline(step: Progress) -> str:
    size = f" ({step.bytes_total / 1e6:.1f} MB)" if step.bytes_total else ""
    there = " (already downloaded)" if _was_there(step) else ""
    return f"[{step.file_index}/{step.total_files}] {step.file}{size}{there}"


def _was_there(step: Progress) -> bool:
    return 0 < step.bytes_total == step.bytes_previously_downloaded


def _amount(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"


def _speed(moved_bytes: int, seconds: float) -> str:
    return f" {moved_bytes / seconds / 1e6:.1f} MB/s" if seconds > _SPEED_AFTER else ""


def _show_bars(steps: Iterator[Progress], *, err: bool) -> None:
    from rich import progress as bars
    from rich.console import Console
    from rich.markup import escape

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=20),
        bars.TextColumn("{task.fields[amount]}"),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(compact=True),
        console=Console(stderr=err),
    ) as display:
        current: tuple[int, str] | None = None
        shown: list[TaskID] = []
        began, had = 0.0, 0
        for step in steps:
            if _says_nothing(step, current):
                continue
            if (step.file_index, step.file) != current:
                if shown:
                    _fill(display, shown[-1])
                current = (step.file_index, step.file)
                began, had = time.monotonic(), step.bytes_downloaded
                task = display.add_task(
                    escape(f"[{step.file_index}/{step.total_files}] {_short(step.file)}"),
                    total=step.bytes_total or None,
                    completed=had,
                    amount="",
                    speed="",
                )
                shown.append(task)
                if len(shown) > _BARS:  # more than a terminal is high would hide the last one
                    display.update(shown[-_BARS - 1], visible=False)
            amount = f"{_amount(step.bytes_downloaded)}/{_amount(step.bytes_total)}"
            moved, seconds = step.bytes_downloaded - had, time.monotonic() - began
            display.update(
                shown[-1],
                total=step.bytes_total or None,
                completed=step.bytes_downloaded,
                amount=amount if step.bytes_total else "",
                speed=_speed(moved, seconds).strip() if moved > 0 else "",
            )
        if shown:
            _fill(display, shown[-1])


def _short(name: str) -> str:
    """A name that leaves room for the bar; its two ends say most."""
    half = (_NAME_WIDTH - 1) // 2
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"


def _fill(display: Bars, task: TaskID) -> None:
    """A file is done when the next one begins, whatever its last figure was."""
    whole = next(one.total for one in display.tasks if one.id == task) or 1
    display.update(task, total=whole, completed=whole)
