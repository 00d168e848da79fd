"""A string of arguments as words, and back: the quoting rules of a POSIX shell, and nothing else.

No variables, no globs, no comments. Our own few lines rather than `shlex`, because a person who
forgot a quote wants to know where it was opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lemonade.core.errors import BadArgument

_BLANK: Final = " \t\r\n"
_ESCAPABLE: Final = '"\\$`\n'
"""What a backslash takes the meaning from inside double quotes; before others it stays."""

_PLAIN: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"
)


def split_words(text: str) -> tuple[str, ...]:
    """The words of `text`.

    Blanks, tabs and line ends separate. Single quotes keep everything; double quotes keep blanks
    and let a backslash escape; outside quotes a backslash escapes any character. `''` is a word.

    Raises:
        BadArgument: a quote is not closed, or the text ends in a backslash. `facts["position"]`
            is the 1-based column where it was opened.
    """
    words: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char in _BLANK:
            if word is not None:
                words.append("".join(word))
                word = None
            at += 1
            continue
        if text.startswith("\\\n", at):  # an escaped line end continues the line
            at += 2
            continue
        word = [] if word is None else word
        if char == "'":
            at = _single_quoted(text, at, word)
        elif char == '"':
            at = _double_quoted(text, at, word)
        elif char == "\\":
            if at + 1 == len(text):
                raise _unfinished(text, at, "ends in a backslash", "Double it, or remove it")
            word.append(text[at + 1])
            at += 2
        else:
            word.append(char)
            at += 1
    if word is not None:
        words.append("".join(word))
    return tuple(words)


def join_words(words: Iterable[str]) -> str:
    """One string that `split_words`, and any POSIX shell, reads as these words."""
    return " ".join(_quoted(word) for word in words)


def _single_quoted(text: str, opened: int, word: list[str]) -> int:
    closed = text.find("'", opened + 1)
    if closed < 0:
        raise _unfinished(text, opened, "has a ' that is not closed", "Add the missing '")
    word.append(text[opened + 1 : closed])
    return closed + 1


def _double_quoted(text: str, opened: int, word: list[str]) -> int:
    at = opened + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return at + 1
        if char == "\\" and at + 1 < len(text) and text[at + 1] in _ESCAPABLE:
            at += 1
            char = "" if text[at] == "\n" else text[at]
        word.append(char)
        at += 1
    raise _unfinished(text, opened, 'has a " that is not closed', 'Add the missing "')


def _unfinished(text: str, at: int, what: str, remedy: str) -> BadArgument:
    return BadArgument(
        f"The argument string {what}: column {at + 1}, at {text[at : at + 20]!r}.",
        remedy=f"{remedy}, or send the arguments as a list of strings.",
        facts={"position": at + 1},
    )


def _quoted(word: str) -> str:
    if word and _PLAIN.issuperset(word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"
