"""Requests are read as far as needed, and what is wrong with them is named."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import Operation
from lemonade.dialects import INFERENCE_ROUTES, read_inference

CHAT, TOKENIZE = Operation.CHAT, Operation.TOKENIZE
NEEDS_A_MODEL = [
    Operation.CHAT,
    Operation.COMPLETION,
    Operation.RESPONSES,
    Operation.EMBEDDINGS,
    Operation.RERANK,
]


@pytest.mark.parametrize("operation", NEEDS_A_MODEL)
def test_the_body_passes_untouched(operation: Operation) -> None:
    body = b' { "model" : "Tiny:latest","odd": [1.0, 1e2, "\\u00e9"],\t"model2":null } '
    request = read_inference(operation, body)
    assert request.body is body
    assert request.model == "Tiny:latest"
    assert request.operation is operation
    assert request.stream is False


def test_a_body_of_a_hundred_megabytes_passes_untouched() -> None:
    image = b"A" * (100 << 20)
    body = b'{"messages":[{"role":"user","content":"' + image + b'"}],"stream":true,"model":"m"}'
    request = read_inference(CHAT, body)
    assert request.body is body
    assert (request.model, request.stream) == ("m", True)


@pytest.mark.parametrize(
    ("text", "stream"), [("true", True), ("false", False), ("null", False), (None, False)]
)
def test_stream(text: str | None, *, stream: bool) -> None:
    field = "" if text is None else f', "stream": {text}'
    assert read_inference(CHAT, f'{{"model": "m"{field}}}'.encode()).stream is stream


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('"true"', "a string"),
        ("1", "the number 1"),
        ("[]", "an array"),
        ("{}", "an object"),
    ],
)
def test_a_stream_of_another_type_is_named(value: str, named: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read_inference(CHAT, f'{{"model": "m", "stream": {value}}}'.encode())
    assert caught.value.message == f"The field 'stream' must be true or false, not {named}."
    assert caught.value.facts == {"field": "stream"}


def test_what_cannot_stream_has_no_say_about_it() -> None:
    request = read_inference(Operation.EMBEDDINGS, b'{"model": "m", "stream": "yes"}')
    assert request.stream is False


@pytest.mark.parametrize("operation", NEEDS_A_MODEL)
@pytest.mark.parametrize("body", [b"{}", b'{"model": null}', b'{"model": ""}', b'{"model": " "}'])
def test_a_model_must_be_named(operation: Operation, body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="no model specified") as caught:
        read_inference(operation, body)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("value", "named"),
    [("7", "the number 7"), ("true", "true"), ('["a"]', "an array"), ("{}", "an object")],
)
def test_a_model_of_another_type_is_named(value: str, named: str) -> None:
    with pytest.raises(MalformedRequest, match=f"'model' must be a string, not {named}"):
        read_inference(CHAT, f'{{"model": {value}}}'.encode())


def test_of_a_repeated_key_the_last_one_counts() -> None:
    body = b'{"model": 7, "stream": false, "model": "b", "stream": true}'
    request = read_inference(CHAT, body)
    assert (request.model, request.stream) == ("b", True)
    assert request.body is body


# ---- tokenize


def test_tokenize_needs_no_model_but_something_to_cut() -> None:
    request = read_inference(TOKENIZE, b'{"content": "hello"}')
    assert (request.model, request.stream) == ("", False)
    assert read_inference(TOKENIZE, b'{"content": "", "model": "m"}').model == "m"
    with pytest.raises(MalformedRequest, match="'content' must be a string, not null"):
        read_inference(TOKENIZE, b"{}")
    with pytest.raises(MalformedRequest, match="'content' must be a string, not an array"):
        read_inference(TOKENIZE, b'{"content": ["a"]}')


def test_a_chat_may_have_a_content_of_any_kind() -> None:
    read_inference(CHAT, b'{"model": "m", "content": [1]}')


# ---- what is no request


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (b'{"model": "m"', "not JSON"),
        (b'{"model": "m",}', "not JSON"),
        (b"{'model': 'm'}", "not JSON"),
        (b'{"model": "m"} x', "trailing characters"),
        (b'{"model": "m", "messages": [1, 2}', "byte 32"),
        (b'{"model": "m", "x": 01}', "invalid number"),
        (b'{"model": "m", "x": NaN}', "not JSON"),
        (b'{"model": "m", "x": "a\nb"}', "not JSON"),
        (b'{"model": "\xff"}', "not JSON"),
        (b'\xef\xbb\xbf{"model": "m"}', "not JSON"),
        (b"\x00\x01\x02", "not JSON"),
        (b"[]", "must be a JSON object, not an array"),
        (b"7]", "must be a JSON object, not a number"),
        (b" true", "must be a JSON object, not true"),
        (b"null", "must be a JSON object, not null"),
        (b'"model"', "must be a JSON object, not a string"),
        (b"7", "must be a JSON object, not a number"),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_json_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read_inference(CHAT, body)
    assert words in caught.value.message


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        assert read_inference(CHAT, body).body == body


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=5,
    )
)
def test_unknown_fields_are_of_no_concern(fields: dict[str, object]) -> None:
    ours = {"model": "m", "stream": True}
    others = {f"x{name}": value for name, value in fields.items()}
    body = json.dumps(others | ours).encode()
    request = read_inference(CHAT, body)
    assert (request.model, request.stream, request.body) == ("m", True, body)


# ---- routes


def test_every_operation_has_a_route() -> None:
    assert {operation for operation, _, _ in INFERENCE_ROUTES} == set(Operation)


def test_rerank_has_three_names() -> None:
    assert [path for operation, _, path in INFERENCE_ROUTES if operation is Operation.RERANK] == [
        "/rerank",
        "/reranking",
        "/reranker",
    ]
