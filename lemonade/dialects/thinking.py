"""Whether a model shall think before it answers: two fields of ours, told to engines in theirs.

Clients write `enable_thinking: bool`, or `thinking` as a boolean or as an object with the type
`enabled` or `disabled`; the first wins. Engines know neither, so both are removed. To switch
thinking off the engine gets what chat templates look for: `reasoning_effort: "none"`,
`chat_template_kwargs.enable_thinking: false`, and `/no_think` before the last user's words, which
is what models read that were trained with it as a soft switch.

A body with one of the two fields is written anew; fields and messages that do not change keep
their very bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lemonade.core.errors import MalformedRequest

_SOFT_SWITCH: Final = "/no_think\n"

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def decide_thinking(body: bytes) -> bytes:
    """The body an engine gets. `body` is a JSON object that holds at least one of the fields.

    Raises:
        MalformedRequest: a field does not say yes or no.
    """
    fields = _FIELDS.decode(body)
    explicit = _enable_thinking(fields.pop("enable_thinking", None))
    general = _thinking(fields.pop("thinking", None))
    wanted = explicit if explicit is not None else general
    if wanted is False:
        fields["reasoning_effort"] = _raw("none")
        fields["chat_template_kwargs"] = _template_kwargs(fields.get("chat_template_kwargs"))
        if "messages" in fields:
            fields["messages"] = _switched_off(fields["messages"])
    return msgspec.json.encode(fields)


def _enable_thinking(raw: msgspec.Raw | None) -> bool | None:
    value = msgspec.json.decode(raw) if raw else None
    if value is None or isinstance(value, bool):
        return value
    raise MalformedRequest(
        "The field 'enable_thinking' must be true or false.", facts={"field": "enable_thinking"}
    )


def _thinking(raw: msgspec.Raw | None) -> bool | None:
    value = msgspec.json.decode(raw) if raw else None
    if value is None or isinstance(value, bool):
        return value
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("enabled", "disabled"):
        return bool(kind == "enabled")
    raise MalformedRequest(
        "The field 'thinking' must be true, false, or an object with the type 'enabled' or "
        "'disabled'.",
        facts={"field": "thinking"},
    )


def _template_kwargs(raw: msgspec.Raw | None) -> msgspec.Raw:
    try:
        kwargs = _FIELDS.decode(raw) if raw and bytes(raw).strip() != b"null" else {}
    except msgspec.ValidationError as error:
        raise MalformedRequest(
            "The field 'chat_template_kwargs' must be an object.",
            facts={"field": "chat_template_kwargs"},
        ) from error
    return _raw({**kwargs, "enable_thinking": False})


def _switched_off(raw: msgspec.Raw) -> msgspec.Raw:
    """Put the soft switch before the last user message whose content is plain text.

    Messages of an odd shape are left to the engine to complain about.
    """
    try:
        messages = _ITEMS.decode(raw)
        for index in range(len(messages) - 1, -1, -1):
            message = _FIELDS.decode(messages[index])
            content = _text(message.get("content"))
            if _text(message.get("role")) == "user" and content is not None:
                message["content"] = _raw(_SOFT_SWITCH + content)
                messages[index] = _raw(message)
                return _raw(messages)
    except msgspec.ValidationError:
        return raw
    return raw


def _text(raw: msgspec.Raw | None) -> str | None:
    if raw is None or not bytes(raw).lstrip().startswith(b'"'):
        return None
    text = msgspec.json.decode(raw)
    return text if isinstance(text, str) else None


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
