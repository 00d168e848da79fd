"""Questions to the person: a line of input, a choice from a menu.

They work without a terminal too, so that answers can be piped; the end of the input is an answer
that says no.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from lemonade.cli.render import note
from lemonade.client import LemonadeClient
from lemonade.core.errors import NoAnswer
from lemonade.core.inference import JsonObject

_SHOWN_MODELS: Final = 9


def ask(question: str, default: str = "") -> str:
    """One line, or the default for an empty one.

    Raises:
        NoAnswer: the input ended, or the line is empty and there is no default.
    """
    shown = f"{question} [{default}]: " if default else f"{question}: "
    sys.stderr.write(shown)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
        raise NoAnswer("Nothing was chosen.")
    answer = line.strip() or default
    if not answer:
        raise NoAnswer("Nothing was chosen.")
    return answer


def choose(question: str, names: Sequence[str], labels: Sequence[str], *, first: int) -> str:
    """A name from a numbered menu, or whatever name was typed instead of a number.

    Args:
        question: under the menu.
        names: to choose from.
        labels: how they are shown.
        first: so many are shown at once; the rest behind one more entry.

    Raises:
        NoAnswer: nothing was chosen.
    """
    shown = len(names) if len(names) <= first + 1 else first
    while True:
        for number, label in enumerate(labels[:shown], 1):
            note(f"  {number}) {label}")
        if shown < len(names):
            note(f"  {shown + 1}) Browse all {len(names)}")
        answer = ask(question)
        if not answer.isdigit():
            near = [name for name in names if name.casefold() == answer.casefold()]
            return near[0] if near else answer
        number = int(answer)
        if 1 <= number <= shown:
            return names[number - 1]
        if number == shown + 1 and shown < len(names):
            shown = len(names)
        else:
            note(f"There is no number {number}.")


def choose_model(client: LemonadeClient) -> str:
    """The model somebody picks from those worth trying.

    Raises:
        NoAnswer: nobody picked one.
    """
    chats = [m for m in client.models(show_all=True) if "chat" in (m.get("labels") or ("chat",))]
    offered = [m for m in chats if "hot" in (m.get("labels") or ())]
    offered = offered or [m for m in chats if m.get("downloaded")] or chats
    names = [str(model.get("id")) for model in offered]
    labels = [_label(model) for model in offered]
    note("Models to begin with:")
    return choose("Model (number or any name)", names, labels, first=_SHOWN_MODELS)


def _label(model: JsonObject) -> str:
    size = model.get("size")
    known = f"  ({size:.2f} GB)" if isinstance(size, (int, float)) and size > 0 else ""
    return f"{model.get('id')}{known}" + ("  (downloaded)" if model.get("downloaded") else "")
