"""Requests in the house language, OpenAI's: engines speak it too, so bodies pass through.

A body may hold a hundred megabytes of images. It is walked once, as far as JSON demands, and only
the few fields that are ours to know are taken out; the bytes sent on are the client's own. The
one exception is a chat request that says something about thinking (see `thinking`).

Of a key that occurs twice the last one counts, here as in the engines.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import Inference, JsonObject, Operation
from lemonade.dialects.thinking import decide_thinking

INFERENCE_ROUTES: Final[tuple[tuple[Operation, str, str], ...]] = (
    (Operation.CHAT, "POST", "/chat/completions"),
    (Operation.COMPLETION, "POST", "/completions"),
    (Operation.RESPONSES, "POST", "/responses"),
    (Operation.EMBEDDINGS, "POST", "/embeddings"),
    (Operation.RERANK, "POST", "/rerank"),
    (Operation.RERANK, "POST", "/reranking"),
    (Operation.RERANK, "POST", "/reranker"),
    (Operation.TOKENIZE, "POST", "/tokenize"),
    (Operation.SLOTS, "GET", "/slots"),
    (Operation.SLOTS, "POST", "/slots{tail:/[0-9]+}"),
)
"""Operation, method and path below the prefixes. `tail` is added to the engine's own path."""

_STREAMING: Final = frozenset({Operation.CHAT, Operation.COMPLETION, Operation.RESPONSES})

_MODEL_OPTIONAL: Final = frozenset({Operation.TOKENIZE, Operation.SLOTS})
"""Without a model they go to the one that was used last."""


_BEGINNINGS: Final = {
    b"[": "an array",
    b'"': "a string",
    b"t": "true",
    b"f": "false",
    b"n": "null",
}


class _Head(msgspec.Struct):
    """The fields we look at, still as bytes: their types are judged by us, for the messages."""

    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    enable_thinking: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()


class _Plain(msgspec.Struct):
    """The same of a request about which there is nothing to say, as nearly all are."""

    model: str
    stream: bool | None = None
    enable_thinking: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()


_PLAIN: Final = msgspec.json.Decoder(_Plain)
_HEAD: Final = msgspec.json.Decoder(_Head)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def read_inference(operation: Operation, body: bytes) -> Inference:
    """Read a request as far as needed. The whole body is checked to be JSON.

    `stream` must be a boolean; null counts as absent, as in OpenAI's own reference. It is looked
    at only where there is something to stream.

    Raises:
        MalformedRequest: the body is no JSON object, names no model, or a field we read has the
            wrong type; the message names the field and what it holds.
    """
    try:
        plain = _PLAIN.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_whatever(operation, body)
    model = plain.model
    if operation not in _STREAMING or plain.enable_thinking or plain.thinking or not model.strip():
        return _read_whatever(operation, body)
    return Inference(operation, model, plain.stream is True, body)


def _read_whatever(operation: Operation, body: bytes) -> Inference:
    """The same for requests of which something may have to be said."""
    try:
        head = _HEAD.decode(body)
        model = _model(operation, head)
        stream = operation in _STREAMING and _stream(head)
        if operation is Operation.TOKENIZE:
            _check_content(head)
        if operation is Operation.CHAT and (head.enable_thinking or head.thinking):
            body = decide_thinking(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(body, error) from error
    return Inference(operation, model, stream, body)


def read_object(body: bytes) -> JsonObject:
    """A body that has to be a JSON object, all of it.

    Raises:
        MalformedRequest: it is not.
    """
    try:
        return _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(body, error) from error


def _model(operation: Operation, head: _Head) -> str:
    model = _value(head.model)
    if isinstance(model, str) and model.strip():
        return model
    if model is None or isinstance(model, str):
        if operation in _MODEL_OPTIONAL:
            return ""
        raise MalformedRequest(
            "The field 'model' is missing or empty: no model specified.",
            remedy="Name one; GET /v1/models lists them.",
            facts={"field": "model", "missing": True},
        )
    raise _wrong_type("model", "a string", model)


def _stream(head: _Head) -> bool:
    stream = _value(head.stream)
    if stream is None or isinstance(stream, bool):
        return bool(stream)
    raise _wrong_type("stream", "true or false", stream)


def _check_content(head: _Head) -> None:
    content = _value(head.content)
    if not isinstance(content, str):
        raise _wrong_type("content", "a string", content)


def _value(raw: msgspec.Raw) -> object:
    return msgspec.json.decode(raw) if raw else None


def _wrong_type(field: str, expected: str, value: object) -> MalformedRequest:
    return MalformedRequest(
        f"The field '{field}' must be {expected}, not {_kind(value)}.", facts={"field": field}
    )


def _kind(value: object) -> str:
    """What JSON calls it, with the value itself where it is short."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _not_json(body: bytes, error: Exception) -> MalformedRequest:
    if not body.strip():
        return MalformedRequest("The body is empty.", remedy="Send a JSON object.")
    if isinstance(error, RecursionError):
        return MalformedRequest(
            "The body is nested too deeply.", remedy="Send JSON with fewer levels."
        )
    beginning = body.lstrip()[:1]
    if isinstance(error, msgspec.ValidationError) and beginning != b"{":
        found = _BEGINNINGS.get(beginning, "a number")
        return MalformedRequest(
            f"The body must be a JSON object, not {found}.",
            remedy='Write {"key": value, ...}, as the interface describes it.',
        )
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = str(error).removeprefix("JSON is malformed: ")
    return MalformedRequest(
        f"The body is not JSON: {reason}.", remedy="Send a complete JSON object in UTF-8."
    )
