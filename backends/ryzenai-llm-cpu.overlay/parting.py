"""What a model says, parted as it comes: thoughts, text and calls of tools, up to a stop string.

Pure: text goes in piece by piece, parts come out. Text that may still turn out to be the beginning
of a stop string or a tag is held back until that is clear. Models write `<think>…</think>` before
an answer, and `<tool_call>{"name": …, "arguments": {…}}</tool_call>` in it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

THINK, THOUGHT = "<think>", "</think>"
CALL, CALLED = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """A piece of the reasoning before it."""

    text: str


@dataclass(frozen=True)
class Called:
    """A whole call of a tool. `arguments` is JSON, as clients get it."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


Part = Said | Thought | Called


class Stops:
    """Cuts a text at the first stop string.

    Attributes:
        hit: whether there was one.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self._strings = tuple(filter(None, strings))
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """What is certain to be before any stop string."""
        if self.hit:
            return ""
        self._held += piece
        found = [at for at in map(self._held.find, self._strings) if at >= 0]
        if found:
            self.hit = True
            text, self._held = self._held[: min(found)], ""
            return text
        cut = len(self._held) - possible_start(self._held, self._strings)
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def end(self) -> str:
        """What was held back and is no stop string after all."""
        text, self._held = self._held, ""
        return text


class Parting:
    """Parts one answer.

    Attributes:
        calls: how many tools it has called.
    """

    def __init__(self, *, thinking: bool = False, tools: bool = False) -> None:
        """Nothing was said yet.

        Args:
            thinking: the prompt has opened the reasoning already.
            tools: calls are looked for; without, they are text like any other.
        """
        self._tools = tools
        self._state = "thinking" if thinking else "beginning"
        self._held = ""
        self._fresh = True  # nothing of this kind of part was given yet
        self.calls = 0

    def feed(self, piece: str) -> list[Part]:
        """The parts that are certain now."""
        self._held += piece
        parts: list[Part] = []
        while True:
            before = (self._state, self._held)
            parts.extend(self._advance())
            if before == (self._state, self._held):
                return parts

    def end(self) -> list[Part]:
        """The rest, at the end of the answer."""
        rest, self._held = self._held, ""
        if self._state == "thinking":
            return list(self._given(Thought, rest))
        if self._state == "calling":  # some models end instead of closing the tag
            return [call] if (call := self._read_call(rest)) else list(self._said(CALL + rest))
        if self.calls and not rest.strip():
            return []
        return list(self._said(rest))

    def _advance(self) -> Iterable[Part]:
        match self._state:
            case "beginning":
                return self._begin()
            case "thinking":
                return self._think()
            case "calling":
                return self._call()
            case _:
                return self._say()

    def _begin(self) -> Iterator[Part]:
        text = self._held.lstrip()
        if text.startswith(THINK):
            self._state, self._held = "thinking", text[len(THINK) :]
        elif text and not THINK.startswith(text):
            self._state = "saying"
        yield from ()

    def _think(self) -> Iterator[Part]:
        thought, end, rest = self._held.partition(THOUGHT)
        if end:
            yield from self._given(Thought, thought)
            self._state, self._held, self._fresh = "saying after a thought", rest, True
            return
        cut = len(thought) - possible_start(thought, (THOUGHT,))
        self._held = thought[cut:]
        yield from self._given(Thought, thought[:cut])

    def _say(self) -> Iterator[Part]:
        if self._state == "saying after a thought":
            self._held = self._held.lstrip()
            if not self._held:
                return
            self._state = "saying"
        if not self._tools:
            text, self._held = self._held, ""
            yield from self._said(text)
            return
        text, tag, rest = self._held.partition(CALL)
        if tag:
            yield from self._said(text.rstrip())
            self._state, self._held = "calling", rest
            return
        # Blanks before a call belong to it, so they wait for what follows.
        cut = len(text) - possible_start(text, (CALL,))
        cut = len(text[:cut].rstrip())
        self._held = text[cut:]
        yield from self._said(text[:cut])

    def _call(self) -> Iterator[Part]:
        written, end, rest = self._held.partition(CALLED)
        if not end:
            return
        self._state, self._held = "saying", rest
        if call := self._read_call(written):
            yield call
        else:
            yield from self._said(CALL + written + CALLED)

    def _read_call(self, written: str) -> Called | None:
        try:
            call = json.loads(written)
            name, arguments = call["name"], call.get("arguments", call.get("parameters", {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if not isinstance(name, str):
            return None
        self.calls += 1
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return Called(name, arguments)

    def _said(self, text: str) -> Iterator[Part]:
        yield from self._given(Said, text)

    def _given(self, kind: type[Said | Thought], text: str) -> Iterator[Part]:
        if kind is Thought and self._fresh:
            text = text.lstrip("\n")
        if text:
            self._fresh = False
            yield kind(text)


def possible_start(text: str, strings: Iterable[str]) -> int:
    """How many of the last characters may be the beginning of one of the strings."""
    longest = 0
    for string in strings:
        for size in range(min(len(string) - 1, len(text)), longest, -1):
            if text.endswith(string[:size]):
                longest = size
                break
    return longest
