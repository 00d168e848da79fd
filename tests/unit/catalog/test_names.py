"""What a model may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.catalog import clean_name, split_origin
from lemonade.catalog.names import own_name
from lemonade.core.errors import MalformedRequest

GOOD = ["A", " A ", "Qwen3-8B-GGUF", "user.X", "acme/Model", "a:b", "日本", "x" * 200, "a..b"]
BAD = [
    (None, "must be a string"),
    (5, "must be a string"),
    (["a"], "must be a string"),
    ("", "empty"),
    (" \t", "empty"),
    ("x" * 201, "longer than 200"),
    ("..", "like a path"),
    ("../a", "like a path"),
    ("a/../b", "like a path"),
    ("a/..", "like a path"),
    ("/etc/passwd", "like a path"),
    ("a//b", "like a path"),
    ("a/", "like a path"),
    ("./a", "like a path"),
    ("a\\b", "like a path"),
    ("a\x00b", "cannot be printed"),
    ("a\nb", "cannot be printed"),
    ("a\x1b[31mb", "cannot be printed"),
    ("a\x7fb", "cannot be printed"),
    ("a\u202eb", "cannot be printed"),
    ("a\u2028b", "cannot be printed"),
    ("a\ud800b", "cannot be printed"),
]


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    assert clean_name(name) == name.strip()


@pytest.mark.parametrize(("name", "why"), BAD, ids=ascii)
def test_bad(name, why):
    with pytest.raises(MalformedRequest, match=why) as caught:
        clean_name(name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@given(st.text(st.characters(), max_size=300))
def test_no_name_leaves_its_folder(name):
    try:
        cleaned = clean_name(name)
    except MalformedRequest:
        return
    assert cleaned.isprintable()
    assert not {"", ".", ".."} & set(cleaned.split("/"))


OWN = [
    ("user.X", "X"),
    (" user.X ", "X"),
    ("user.a.b", "a.b"),
    ("user.X:Q4", "X:Q4"),
]
NOT_OWN = [
    ("X", "begins with 'user.'", "user.X"),
    ("extra.X", "begins with 'user.'", "user.X"),
    ("builtin.X", "begins with 'user.'", "user.X"),
    ("acme/X", "begins with 'user.'", "user.acme-X"),
    ("user.", "begins with 'user.'", ""),
    ("user.extra.X", "two prefixes", "user.X"),
    ("user.builtin.X", "two prefixes", "user.X"),
    ("user.user.X", "two prefixes", "user.X"),
    ("user.a/b", "no slash", "user.a-b"),
    ("user..hidden", "no dot", "user.hidden"),
    ("user.-x", "no hyphen", "user.x"),
]


@pytest.mark.parametrize(("name", "bare"), OWN)
def test_own(name, bare):
    assert own_name(name) == bare


@pytest.mark.parametrize(("name", "why", "suggested"), NOT_OWN)
def test_not_own(name, why, suggested):
    with pytest.raises(MalformedRequest) as caught:
        own_name(name)
    assert why in caught.value.message
    assert suggested in caught.value.remedy


ORIGINS = [
    ("user.X", ("user", "X")),
    ("extra.a.b", ("extra", "a.b")),
    ("builtin.X", ("builtin", "X")),
    ("X", (None, "X")),
    ("user", (None, "user")),
    ("user.", (None, "user.")),
    ("other.X", (None, "other.X")),
]


@pytest.mark.parametrize(("name", "parts"), ORIGINS)
def test_split_origin(name, parts):
    assert split_origin(name) == parts


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("X", "user.X"),
        ("owner/repo", "user.owner-repo"),
        ("user.user.X", "user.X"),
        ("user.user.user.X", "user.X"),
        ("builtin.user.X", "user.X"),
        ("extra.X", "user.X"),
        ("User.X", "user.X"),
        ("user/X", "user.X"),
        ("user:X", "user.X"),
        ("user..X", "user.X"),
        ("user.a/b", "user.a-b"),
        ("user.extra.a/b", "user.a-b"),
        ("userX", "user.userX"),
    ],
)
def test_the_name_that_is_suggested_would_do(name: str, suggested: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        own_name(name)
    assert caught.value.remedy == f"Call it '{suggested}'."
    assert suggested == f"user.{own_name(suggested)}"


@given(st.lists(st.sampled_from(["user.", "builtin.", "/", ".", "-", "x", "User", ":", "user"])))
def test_no_suggestion_has_two_prefixes(parts: list[str]) -> None:
    try:
        own_name("".join(parts))
    except MalformedRequest as error:
        if "Call it" in error.remedy and "name of your own" not in error.remedy:
            suggested = error.remedy.split("'")[1]
            assert own_name(suggested)
            assert not suggested.lower().startswith("user.user.")
