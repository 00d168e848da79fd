"""What some engines need to be told differently: the model's name, limits, and usage on streams.

Engines that take requests as they are never come here. For the others only the fields in question
are decoded. A field that is missing is put in at the front; only a field that has to be replaced
makes the body be written anew, and the other fields keep their very bytes even then.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import Operation
from lemonade.core.records import dataclass

_NEW_LIMIT: Final = "max_completion_tokens"
_OLD_LIMIT: Final = "max_tokens"

_RESPONSE_LIMIT: Final = "max_output_tokens"
"""What `responses` calls it."""

_LIMITED: Final = frozenset({Operation.CHAT, Operation.COMPLETION})
"""Operations with the first two, and with usage that has to be asked for."""

_TEMPLATE_FIELDS: Final = (
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "tools",
)
"""What decides, besides the messages, how long a prompt becomes."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NONE: Final = msgspec.Raw()


class _Wishes(msgspec.Struct):
    max_completion_tokens: msgspec.Raw = _NONE
    max_tokens: msgspec.Raw = _NONE
    max_output_tokens: msgspec.Raw = _NONE
    stream_options: msgspec.Raw = _NONE


_WISHES: Final = msgspec.json.Decoder(_Wishes)


class _Counted(msgspec.Struct):
    count: msgspec.Raw = _NONE
    token_count: msgspec.Raw = _NONE
    tokens: msgspec.Raw = _NONE
    token_ids: msgspec.Raw = _NONE


_COUNTED: Final = msgspec.json.Decoder(_Counted)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A request as an engine shall get it.

    Attributes:
        body: its bytes.
        limit: how many new tokens it allows; `None` if it does not say, or not with a number.
        hide_usage: whether usage was asked for by us, so that the client must not see it.
    """

    body: bytes
    limit: int | None = None
    hide_usage: bool = False


def adapt_request(
    operation: Operation, body: bytes, *, old_limit: bool = False, ask_usage: bool = False
) -> Adapted:
    """Say the limit in the old field too, and ask for usage, each only if told to and needed.

    Args:
        operation: what is asked for; of `responses` only the limit is read.
        body: a JSON object, checked before.
        old_limit: copy `max_completion_tokens` to `max_tokens` if only the first is there.
        ask_usage: the answer is a stream, and without being asked it will not say what it cost.

    Raises:
        MalformedRequest: a name in it is not UTF-8, and the body has to be written anew.
    """
    if operation is Operation.RESPONSES:
        return Adapted(body, _positive(_WISHES.decode(body).max_output_tokens))
    if operation not in _LIMITED:
        return Adapted(body)
    wishes = _WISHES.decode(body)
    new, old = _positive(wishes.max_completion_tokens), _positive(wishes.max_tokens)
    if old_limit and new is not None and _absent(wishes.max_tokens):
        body = _put(body, _OLD_LIMIT, wishes.max_tokens, b"%d" % new)
    hide = False
    if ask_usage:
        asking = _asking(wishes.stream_options)
        if asking is not None:
            body = _put(body, "stream_options", wishes.stream_options, asking)
            hide = True
    return Adapted(body, old if new is None else new, hide)


def rename_model(body: bytes, name: str) -> bytes:
    """The body with another name of the model.

    Raises:
        MalformedRequest: as `adapt_request`.
    """
    fields = _fields(body)
    fields["model"] = _raw(name)
    return msgspec.json.encode(fields)


def lower_limit(body: bytes, most: int) -> bytes:
    """The body with none of its limits above `most`."""
    fields = _fields(body)
    for name in (_NEW_LIMIT, _OLD_LIMIT, _RESPONSE_LIMIT):
        value = _positive(fields.get(name, _NONE))
        if value is not None and value > most:
            fields[name] = _raw(most)
    return msgspec.json.encode(fields)


def counting_request(operation: Operation, body: bytes) -> bytes | None:
    """What to ask an engine that shall count the prompt; `None` where it cannot be asked.

    Chat templates see `documents` and `reasoning_effort` as arguments of their own, so they are
    put where a request to count has those.
    """
    fields = _fields(body)
    wanted = {name: fields[name] for name in ("model",) if name in fields}
    if operation is Operation.COMPLETION:
        prompt = fields.get("prompt", _NONE)
        if not bytes(prompt).startswith(b'"'):
            return None
        kept = ("prompt", "add_special_tokens")
        return msgspec.json.encode(wanted | {n: fields[n] for n in kept if n in fields})
    if operation is not Operation.CHAT or "messages" not in fields:
        return None
    wanted["messages"] = fields["messages"]
    wanted |= {n: fields[n] for n in _TEMPLATE_FIELDS if not _absent(fields.get(n, _NONE))}
    given = fields.get("chat_template_kwargs", _NONE)
    try:
        arguments = {} if _absent(given) else _fields(given)
    except msgspec.ValidationError:
        return None
    effort = fields.get("reasoning_effort", _NONE)
    if not _absent(effort):
        arguments["reasoning_effort"] = effort
        arguments.setdefault("enable_thinking", _raw(bytes(effort) != b'"none"'))
    documents = fields.get("documents", _NONE)
    if not _absent(documents):
        arguments["documents"] = documents
    if arguments:
        wanted["chat_template_kwargs"] = _raw(arguments)
    return msgspec.json.encode(wanted)


def read_count(answer: bytes) -> int | None:
    """How many tokens an engine counted; `None` if it does not say so in a way we know."""
    try:
        counted = _COUNTED.decode(answer)
        for number in (counted.count, counted.token_count):
            value = _number(number)
            if value is not None:
                return value
        for listed in (counted.tokens, counted.token_ids):
            if bytes(listed).startswith(b"["):
                return len(msgspec.json.decode(listed, type=list[msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None


def read_context(answer: bytes, model: str) -> int | None:
    """How long the context is, from an engine's list of models.

    Source: `max_model_len` of a model is vLLM's, `meta.n_ctx` llama.cpp's.

    Args:
        answer: of the engine.
        model: whose row counts; the first row if none has its name.
    """
    try:
        listed: Any = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    data = listed.get("data") if isinstance(listed, dict) else None
    rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    rows.sort(key=lambda row: row.get("id") != model)
    for row in rows[:1]:
        meta = row.get("meta")
        said = row.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
        if isinstance(said, int) and not isinstance(said, bool) and said > 0:
            return said
    return None


def _asking(options: msgspec.Raw) -> bytes | None:
    """`stream_options` that ask for usage; `None` where the client did, or said something odd.

    `continuous_usage_stats` means nothing without usage; now it would, so it is switched off.
    """
    if _absent(options):
        return b'{"include_usage":true}'
    try:
        wishes = _fields(options)
    except msgspec.ValidationError:
        return None
    asked = wishes.get("include_usage", _NONE)
    if not _absent(asked) and bytes(asked) != b"false":
        return None
    wishes["include_usage"] = _raw(value=True)
    if "continuous_usage_stats" in wishes:
        wishes["continuous_usage_stats"] = _raw(value=False)
    return msgspec.json.encode(wishes)


def _put(body: bytes, name: str, there: msgspec.Raw, value: bytes) -> bytes:
    """Set a field: at the front if it is not there, so that nothing else has to be touched."""
    if there:
        fields = _fields(body)
        fields[name] = msgspec.Raw(value)
        return msgspec.json.encode(fields)
    start = body.index(b"{") + 1
    return b'%b"%b":%b,%b' % (body[:start], name.encode(), value, body[start:])


def _fields(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The fields of an object that is known to be JSON; only names were not looked at so far."""
    try:
        return _FIELDS.decode(raw)
    except UnicodeDecodeError as error:
        raise MalformedRequest(
            "The body is not JSON: it is not UTF-8.", remedy="Send a JSON object in UTF-8."
        ) from error


def _absent(raw: msgspec.Raw) -> bool:
    return not raw or bytes(raw) == b"null"


def _positive(raw: msgspec.Raw) -> int | None:
    value = _number(raw)
    return value or None


def _number(raw: msgspec.Raw) -> int | None:
    """A whole number without a sign, of a size that numbers of tokens have."""
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) < 16 else None


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
