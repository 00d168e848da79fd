"""Text parted into thoughts, answer and calls, whatever the pieces it comes in."""

from __future__ import annotations

import json
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def parted(parting: ModuleType, pieces: list[str], **how: bool) -> list[tuple[str, str]]:
    """Kind and content of the parts, neighbours of a kind joined."""
    one = parting.Parting(**how)
    parts = [part for piece in pieces for part in one.feed(piece)] + one.end()
    found: list[tuple[str, str]] = []
    for part in parts:
        kind = type(part).__name__
        text = f"{part.name} {part.arguments}" if kind == "Called" else part.text
        if found and found[-1][0] == kind != "Called":
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


CASES: list[Any] = [
    ("Hello", {}, [("Said", "Hello")]),
    ("", {}, []),
    (" Hello\n", {}, [("Said", " Hello\n")]),
    ("<think>\nhm\n</think>\n\nHello", {}, [("Thought", "hm\n"), ("Said", "Hello")]),
    ("hm</think>Hello", {"thinking": True}, [("Thought", "hm"), ("Said", "Hello")]),
    ("never done", {"thinking": True}, [("Thought", "never done")]),
    ("a <think>b</think>", {}, [("Said", "a <think>b</think>")]),
    ("<thin air", {}, [("Said", "<thin air")]),
    ("<th", {}, [("Said", "<th")]),
    (CALL, {"tools": True}, [("Called", 'f {"a": 1}')]),
    (CALL, {}, [("Said", CALL)]),
    (f"See.\n{CALL}\n", {"tools": True}, [("Said", "See."), ("Called", 'f {"a": 1}')]),
    (f"{CALL}\n{CALL}", {"tools": True}, [("Called", 'f {"a": 1}')] * 2),
    (CALL.removesuffix("</tool_call>"), {"tools": True}, [("Called", 'f {"a": 1}')]),
    ("<tool_call>nonsense</tool_call>!", {"tools": True},
     [("Said", "<tool_call>nonsense</tool_call>!")]),
    ("<tool_call>half", {"tools": True}, [("Said", "<tool_call>half")]),
    ("<tool_call>[1]</tool_call>", {"tools": True}, [("Said", "<tool_call>[1]</tool_call>")]),
    ("1 < 2 <tool", {"tools": True}, [("Said", "1 < 2 <tool")]),
    (f"<think>x</think>\n{CALL}", {"tools": True}, [("Thought", "x"), ("Called", 'f {"a": 1}')]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "how", "parts"), CASES)
def test_in_one_piece(parting: ModuleType, text: str, how: Any, parts: Any) -> None:
    assert parted(parting, [text], **how) == parts


@pytest.mark.parametrize(("text", "how", "parts"), CASES)
def test_letter_by_letter(parting: ModuleType, text: str, how: Any, parts: Any) -> None:
    assert parted(parting, list(text), **how) == parts


@given(st.data())
def test_pieces_do_not_matter(parting: ModuleType, data: st.DataObject) -> None:
    words = ["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, " ", "\n", "a", "<", "é"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    how = {"thinking": data.draw(st.booleans()), "tools": data.draw(st.booleans())}
    pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    assert parted(parting, pieces, **how) == parted(parting, [text], **how)


@given(st.data())
def test_stop_strings(parting: ModuleType, data: st.DataObject) -> None:
    stops = data.draw(st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
    pieces = data.draw(st.lists(st.text("ab", max_size=4), max_size=6))
    one = parting.Stops(stops)
    given_out = ""
    for piece in pieces:
        given_out += one.feed(piece)
        assert not any(stop in given_out for stop in stops)
    text = "".join(pieces)
    found = [at for at in map(text.find, stops) if at >= 0]
    assert one.hit is bool(found)
    if not found:
        assert given_out + one.end() == text
    else:
        # Which of two comes first may depend on the pieces; that one of them ended it does not.
        assert text.startswith(given_out)
        assert any(text[len(given_out) :].startswith(stop) for stop in stops)


def test_arguments_are_as_clients_get_them(parting: ModuleType) -> None:
    one = parting.Parting(tools=True)
    (call,) = one.feed('<tool_call>{"name": "f", "parameters": {"city": "Zürich"}}</tool_call>')
    assert json.loads(call.arguments) == {"city": "Zürich"}
    assert call.id.startswith("call_")
    assert one.calls == 1
