"""How an answer looks while it comes: word by word, reasoning dim, and how fast it was.

On a terminal the reasoning is shown and the model's control characters are taken out; elsewhere
the output is exactly the answer, so that it can be piped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import cast

import click

from lemonade.cli.render import harmless, is_terminal, style
from lemonade.client import ChatDelta
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass


@dataclass(slots=True)
class Answer:
    """One answer, as far as it came.

    Attributes:
        text: without the reasoning.
        reasoned: whether there was any.
        finish_reason: why the model ended; None if it did not.
        usage: counts of tokens, if they came.
        timings: the engine's own figures, if it has any.
        first_after: seconds to the first text or reasoning.
        seconds: from the question to the end.
        interrupted: whether somebody stopped it.
    """

    text: str = ""
    reasoned: bool = False
    finish_reason: str | None = None
    usage: JsonObject | None = None
    timings: JsonObject | None = None
    first_after: float | None = None
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def tokens(self) -> int | None:
        """How many were generated."""
        for figures, key in ((self.usage, "completion_tokens"), (self.timings, "predicted_n")):
            count = (figures or {}).get(key)
            if isinstance(count, int):
                return count
        return None

    @property
    def tokens_per_second(self) -> float | None:
        """The engine's figure for the generation, else tokens over the time they took."""
        measured = (self.timings or {}).get("predicted_per_second")
        if isinstance(measured, (int, float)) and measured > 0:
            return float(measured)
        took = self.seconds - (self.first_after or 0.0)
        return self.tokens / took if self.tokens and took > 0 else None

    @property
    def figures(self) -> str:
        """`42 tokens, 310.5 tokens/s, first after 0.08 s`: what is known of it."""
        parts = []
        if self.tokens is not None:
            parts.append(f"{self.tokens} tokens")
        if (speed := self.tokens_per_second) is not None:
            parts.append(f"{speed:.1f} tokens/s")
        if self.first_after is not None:
            parts.append(f"first after {self.first_after:.2f} s")
        prompt = (self.usage or {}).get("prompt_tokens")
        if isinstance(prompt, int):
            parts.append(f"prompt {prompt} tokens")
        return ", ".join(parts)


def show_answer(deltas: Iterator[ChatDelta], *, stoppable: bool = False) -> Answer:
    """Print an answer while it comes, and a line end after it.

    Args:
        deltas: from the client; closed in any case, which stops the engine.
        stoppable: Ctrl-C ends this answer and not the program.

    Raises:
        LemonadeError: there was no answer, or not all of it.
    """
    answer, began = Answer(), time.monotonic()
    printer = _Printer()
    try:
        with closing(cast("Generator[ChatDelta, None, None]", deltas)) as pieces:
            for delta in pieces:
                if answer.first_after is None and (delta.text or delta.reasoning):
                    answer.first_after = time.monotonic() - began
                answer.text += delta.text
                answer.reasoned = answer.reasoned or bool(delta.reasoning)
                answer.finish_reason = delta.finish_reason or answer.finish_reason
                answer.usage = delta.usage or answer.usage
                answer.timings = delta.timings or answer.timings
                printer.show(delta)
    except KeyboardInterrupt:
        if not stoppable:
            raise
        answer.interrupted = True
    finally:
        printer.finish()
        answer.seconds = time.monotonic() - began
    return answer


class _Printer:
    """Keeps apart what is thought and what is said."""

    def __init__(self) -> None:
        self._person = is_terminal()
        self._thinking = False
        self._line_open = False

    def show(self, delta: ChatDelta) -> None:
        if delta.reasoning and self._person:
            self._thinking = True
            self._write(style(harmless(delta.reasoning), dim=True), delta.reasoning)
        if delta.text:
            if self._thinking:
                self._thinking = False
                self._write("\n\n" if self._line_open else "\n", "\n")
            self._write(harmless(delta.text) if self._person else delta.text, delta.text)

    def finish(self) -> None:
        if self._line_open:
            self._write("\n", "\n")

    def _write(self, shown: str, meant: str) -> None:
        click.echo(shown, nl=False)
        sys.stdout.flush()
        self._line_open = not meant.endswith("\n")
