"""The small readers: addresses, values, filters, streams. No process and no server."""

from __future__ import annotations

import json

import pytest

from lemonade.cli.listing import select
from lemonade.cli.render import harmless
from lemonade.cli.settings import read_assignments, read_value
from lemonade.cli.status import LoadedModel
from lemonade.client import resolve_address, resolve_key
from lemonade.client.replies import refusal
from lemonade.client.streams import read_chat, read_transfer
from lemonade.core.errors import (
    BadSetting,
    ConnectionLost,
    LemonadeError,
    NotAuthorised,
    ServerRefused,
)


@pytest.mark.parametrize(
    ("host", "port", "environ", "url"),
    [
        (None, None, {}, "http://127.0.0.1:13305"),
        ("", None, {}, "http://127.0.0.1:13305"),
        ("0.0.0.0", None, {}, "http://127.0.0.1:13305"),
        ("localhost", 99, {}, "http://127.0.0.1:99"),
        ("box", None, {}, "http://box:13305"),
        ("box:99", 98, {}, "http://box:99"),
        ("http://box", None, {}, "http://box:80"),
        ("https://box", None, {}, "https://box:443"),
        ("HTTPS://box/path?query#part", None, {}, "https://box:443"),
        ("http://box", 99, {}, "http://box:99"),
        ("http://box:98", 99, {}, "http://box:98"),
        ("http://box", None, {"LEMONADE_PORT": "99"}, "http://box:99"),
        ("::1", None, {}, "http://[::1]:13305"),
        ("fe80::2", 99, {}, "http://[fe80::2]:99"),
        ("http://[::1]:98/", None, {}, "http://[::1]:98"),
        (None, None, {"LEMONADE_HOST": "box", "LEMONADE_PORT": "1"}, "http://box:1"),
        ("flag", 2, {"LEMONADE_HOST": "box", "LEMONADE_PORT": "1"}, "http://flag:2"),
        (None, None, {"LEMONADE_HOST": "http://127.0.0.1:98"}, "http://127.0.0.1:98"),
    ],
)
def test_addresses(host: str | None, port: int | None, environ: dict[str, str], url: str) -> None:
    assert resolve_address(host, port, environ).url == url


@pytest.mark.parametrize(
    ("host", "environ"),
    [
        ("ftp://box", {}),
        ("http://box:99999", {}),
        ("http://box:port", {}),
        (None, {"LEMONADE_PORT": "many"}),
        (None, {"LEMONADE_PORT": "0"}),
    ],
)
def test_what_is_no_address_is_said_so(host: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting):
        resolve_address(host, None, environ)


def test_which_servers_could_be_ours() -> None:
    for host, ours in (
        ("localhost", True),
        ("::1", True),
        ("box", False),
        ("https://[::1]", False),
    ):
        assert resolve_address(host, None, {}).is_this_machine is ours


def test_the_admin_key_wins() -> None:
    both = {"LEMONADE_ADMIN_API_KEY": "admin", "LEMONADE_API_KEY": "key"}
    assert resolve_key("flag", both) == "admin"
    assert resolve_key(None, {"LEMONADE_ADMIN_API_KEY": "", "LEMONADE_API_KEY": "key"}) == "key"
    assert resolve_key("flag", {"LEMONADE_API_KEY": "key"}) == "flag"
    assert resolve_key(None, {}) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("-1", -1), ("0.5", 0.5), ("1.2.3", "1.2.3"), ("1e5", "1e5"), ("true", True),
        ("false", False), ("True", "True"), ("", ""), ("a=b", "a=b"), ("[1, 2]", [1, 2]),
        ('{"a": null}', {"a": None}), ("[broken", "[broken"), ("null", "null"), (" 8", " 8"),
    ],
)  # fmt: skip
def test_values_are_typed_by_their_look(text: str, value: object) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_assignments_make_one_document() -> None:
    words = ["log-level=debug", "a.b-c.d=1", "a.b-c.e=x=y", "a.f="]
    assert read_assignments(words) == {
        "log_level": "debug",
        "a": {"b_c": {"d": 1, "e": "x=y"}, "f": ""},
    }


def test_models_are_sorted_by_bare_name_and_source() -> None:
    names = ["user.B", "builtin.A", "c", "A", "extra.A", "user.A"]
    ordered = [model["id"] for model in select([{"id": name} for name in names], None)]
    assert ordered == ["A", "user.A", "extra.A", "builtin.A", "user.B", "c"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("qwen", True),
        ("USER.Q", True),
        ("^qwen", False),
        ("q*3", True),
        ("qwen3.x", False),
        ("q.e", False),
    ],
)
def test_a_filter_is_a_part_of_the_name(pattern: str, found: bool) -> None:
    assert bool(select([{"id": "user.Qwen3-8B"}], pattern)) is found


def test_a_loaded_model_that_says_little_is_still_a_row() -> None:
    model = LoadedModel.read(
        {"model_name": "m", "recipe": "r", "recipe_options": {"r_backend": "v"}}
    )
    assert (model.backend, model.pid, model.port, model.pinned) == ("r:v", None, None, False)
    assert LoadedModel.read({"recipe": "r"}).backend == "r"
    assert LoadedModel.read({"recipe": "r", "backend": "r:w"}).backend == "r:w"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"error": "text"}, "text"),
        (500, {"error": {"message": "inner", "code": "c"}}, "inner"),
        (502, None, "Request failed: 502"),
        (500, {"error": {}}, "Request failed: 500"),
        (500, {"error": ""}, "Request failed: 500"),
    ],
)
def test_error_bodies_become_sentences(
    status: int, body: dict[str, object] | None, message: str
) -> None:
    error = refusal(status, body)
    assert isinstance(error, ServerRefused)
    assert error.message == message
    assert error.facts["status"] == status


def test_what_the_server_advises_is_passed_on() -> None:
    error = refusal(404, {"error": {"message": "No x.", "remedy": "Did you mean y?"}})
    assert str(error) == "No x. Did you mean y?"


def test_a_refused_key_is_called_a_key() -> None:
    error = refusal(401, {"error": "no"})
    assert isinstance(error, NotAuthorised)
    assert "API key" in error.message


def frames(*events: tuple[str, object]) -> list[bytes]:
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    # One byte at a time: an event may be cut anywhere.
    return [bytes([byte]) for byte in text.encode()]


def test_a_transfer_ends_with_complete() -> None:
    seen = list(
        read_transfer(
            frames(
                ("progress", {"file": "grün", "bytes_total": 10, "bytes_downloaded": 5}),
                ("complete", {"status": "ok"}),
                ("progress", {"file": "never"}),
            )
        )
    )
    assert [(step.file, step.percent, step.complete) for step in seen] == [
        ("grün", 50, False),
        ("", 100, True),
    ]


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([("progress", {"file": "a"})], ConnectionLost),
        ([("error", {"error": "no", "code": "unknown_model"})], ServerRefused),
        ([("progress", ["not an object"])], ConnectionLost),
        ([], ConnectionLost),
    ],
)
def test_a_transfer_that_does_not_complete_is_an_error(
    events: list[tuple[str, object]], error: type[LemonadeError]
) -> None:
    with pytest.raises(error):
        list(read_transfer(frames(*events)))


def test_a_chat_is_text_reasoning_and_figures() -> None:
    chunks = [
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n: ping\n\n',
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"completion_tokens":1},"timings":{"predicted_n":1}}\n\n',
        b"data: [DONE]\n\n",
    ]
    deltas = list(read_chat(chunks))
    assert [(delta.text, delta.reasoning) for delta in deltas] == [("", "hm"), ("a", ""), ("", "")]
    assert deltas[1].finish_reason == "stop"
    assert deltas[2].usage == {"completion_tokens": 1}
    with pytest.raises(ConnectionLost):
        list(read_chat(chunks[:-1]))


def test_a_models_words_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[2J\x07\x9bb\n\tü\u200d") == "a[2Jb\n\tü\u200d"
