"""From the JSON of a request to a `Wish`: what the model is given, and how it is to answer.

Pure. What this engine cannot honour is refused with the name of the parameter, unless its value is
the one that changes nothing. Names nobody knows are passed over, as other servers do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
         "tool": "tool", "function": "tool"}  # fmt: skip
STOPS = 16

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "min_p": (0,),
    "audio": (),
    "functions": ([],),
}
"""What this engine cannot do, and the values that do not ask for it."""


_COMPACT: Json = {"x-guidance": {"whitespace_flexible": False}}
"""For the engine: blanks that JSON allows between its tokens are not. Small models never stop."""


class Refused(Exception):
    """A request that cannot be served: becomes an error in OpenAI's shape."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status, self.kind = param, code, status, kind

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True)
class Wish:
    """One answer that somebody wants.

    Attributes:
        model: the name it was asked by; echoed.
        messages: the conversation as JSON; empty if `prompt` is the text itself.
        tools: JSON of the tools that may be called, or nothing.
        template_settings: variables for the model's template.
        search: options of the search, by the engine's names.
        schema: JSON schema the answer must follow, or nothing.
        max_tokens: of the answer; `None` is as many as there is room for.
        endless: the end of an answer is not one.
        usage_wanted: at the end of a stream.
    """

    model: str = ""
    messages: str = ""
    prompt: str = ""
    tools: str = ""
    template_settings: Json = field(default_factory=dict)
    search: Mapping[str, float | bool] = field(default_factory=dict)
    schema: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    endless: bool = False
    stream: bool = False
    usage_wanted: bool = False


def read_json(body: bytes) -> Json:
    """The object in a request's body."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Refused("The body is not a JSON object.")
    return found


def read_chat(body: Json) -> Wish:
    """A request to `/v1/chat/completions`."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("'messages' must be a list of at least one message.", param="messages")
    tools = _tools(body)
    return Wish(
        messages=json.dumps([_message(m, at) for at, m in enumerate(messages)]),
        tools=json.dumps(tools) if tools else "",
        template_settings=_template_settings(body),
        schema=_schema(body.get("response_format"), "response_format"),
        **_common(body, ("max_completion_tokens", "max_tokens")),
    )


def read_completion(body: Json) -> Wish:
    """A request to `/v1/completions`."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Refused("'prompt' must be one text.", param="prompt")
    if not prompt:
        raise Refused("'prompt' is empty.", param="prompt")
    return Wish(prompt=_clean(prompt), **_common(body, ("max_tokens",)))


def _common(body: Json, limits: tuple[str, ...]) -> dict[str, Any]:
    for name, neutral in NEUTRAL.items():
        if (value := body.get(name)) is not None and value not in neutral:
            raise Refused(
                f"'{name}' is not supported by this engine.",
                param=name,
                code="unsupported_parameter",
            )
    stream_options = _typed(body, "stream_options", dict, {})
    given = (_number(body, name, int, 1, 2**31 - 1) for name in limits)
    return {
        "model": _typed(body, "model", str, ""),
        "search": _search(body),
        "stop": _stop(body),
        "max_tokens": next((limit for limit in given if limit is not None), None),
        "endless": _flag(body, "ignore_eos"),
        "stream": _flag(body, "stream"),
        "usage_wanted": _flag(stream_options, "include_usage"),
    }


# ---- messages


def _message(message: object, at: int) -> dict[str, Any]:
    where = f"messages[{at}]"
    if not isinstance(message, dict):
        raise Refused(f"'{where}' is not an object.", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(f"'{where}.role' must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    read = {"role": ROLES[role], "content": _content(message.get("content"), f"{where}.content")}
    if calls := message.get("tool_calls"):
        read["tool_calls"] = _past_calls(calls, f"{where}.tool_calls")
    for name in ("name", "tool_call_id", "reasoning_content"):
        if isinstance(value := message.get(name), str):
            read[name] = _clean(value)
    return read


def _content(content: object, where: str) -> str:
    """Text, of one piece or several; templates know nothing else."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _clean(content)
    if not isinstance(content, list):
        raise Refused(f"'{where}' must be a text or a list of parts.", param=where)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise Refused(f"'{where}': this model reads text only, not '{kind}'.", param=where)
        if not isinstance(text, str):
            raise Refused(f"'{where}': a part has no text.", param=where)
        texts.append(_clean(text))
    return "\n".join(texts)


def _past_calls(calls: object, where: str) -> list[dict[str, Any]]:
    """Calls the model made before; its template wants arguments as an object."""
    if not isinstance(calls, list):
        raise Refused(f"'{where}' must be a list.", param=where)
    read = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused(f"'{where}': a call has no function with a name.", param=where)
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            with suppress(ValueError):  # a model wrote it; its template shows it as it is
                arguments = json.loads(arguments or "{}")
        function = {"name": function["name"], "arguments": arguments}
        read.append({"id": call.get("id") or "", "type": "function", "function": function})
    return read


def _tools(body: Json) -> list[Json]:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if choice not in (None, "none", "auto"):
        raise Refused(
            "This engine lets the model choose: 'tool_choice' may be 'auto' or 'none'.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if tools is None or choice == "none":
        return []
    if not isinstance(tools, list):
        raise Refused("'tools' must be a list.", param="tools")
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused("'tools': each must have a function with a name.", param="tools")
    return tools


def _template_settings(body: Json) -> Json:
    given = _typed(body, "chat_template_kwargs", dict, {})
    for name, value in given.items():
        if not name.isidentifier() or not isinstance(value, str | int | float | bool):
            raise Refused(
                f"'chat_template_kwargs': '{name}' must be a name with a plain value.",
                param="chat_template_kwargs",
            )
    return given


def _schema(wanted: object, where: str) -> str:
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text"):
        return ""
    if kind == "json_object":
        return json.dumps({"type": "object", **_COMPACT})
    if kind != "json_schema" or not isinstance(wanted, dict):
        raise Refused(f"'{where}' is of no kind this engine knows.", param=where)
    schema = wanted.get("json_schema", wanted)
    schema = schema.get("schema") if isinstance(schema, dict) else None
    if not isinstance(schema, dict):
        raise Refused(f"'{where}' has no schema.", param=where)
    return json.dumps({**schema, **_COMPACT})


# ---- how to search


def _search(body: Json) -> dict[str, float | bool]:
    """Options of the search. What nobody named is left to the model's own configuration."""
    temperature = _number(body, "temperature", float, 0, 10)
    top_p = _number(body, "top_p", float, 0, 1)
    top_k = _number(body, "top_k", int, -1, 2**31 - 1)
    seed = _number(body, "seed", int, -(2**63), 2**64)
    penalty = _number(body, "repetition_penalty", float, 0.01, 100)
    if penalty is None:  # as llama.cpp calls it
        penalty = _number(body, "repeat_penalty", float, 0.01, 100)
    search: dict[str, float | bool] = {}
    if 0 in (temperature, top_p) or top_k == 1:
        search["do_sample"] = False
    elif (temperature, top_p, top_k) != (None, None, None):
        search["do_sample"] = True
        search |= {"temperature": 1.0 if temperature is None else temperature}
        search |= {} if top_p is None else {"top_p": top_p}
        search |= {} if top_k is None else {"top_k": max(top_k, 0)}
    if seed is not None:
        search["random_seed"] = seed % 2**31
    if penalty is not None:
        search["repetition_penalty"] = penalty
    return search


def _stop(body: Json) -> tuple[str, ...]:
    stop = body.get("stop")
    strings = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
        raise Refused("'stop' must be a text or a list of texts.", param="stop")
    if len(strings) > STOPS:
        raise Refused(f"'stop' may hold {STOPS} texts at most.", param="stop")
    return tuple(filter(None, strings))


def _number(body: Json, name: str, kind: Callable[[Any], Any], least: float, most: float) -> Any:  # noqa: ANN401 - what `kind` makes
    value = body.get(name)
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (kind is int and not whole)
    ):
        what = "a whole number" if kind is int else "a number"
        raise Refused(f"'{name}' must be {what}.", param=name)
    if not least <= value <= most:
        raise Refused(f"'{name}' must be between {least:g} and {most:g}.", param=name)
    return kind(value)


def _flag(body: Json, name: str) -> bool:
    return bool(_typed(body, name, bool, None))


def _typed(body: Json, name: str, kind: type, default: Any) -> Any:  # noqa: ANN401
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        words = {str: "a text", bool: "true or false", dict: "an object"}
        raise Refused(f"'{name}' must be {words[kind]}.", param=name)
    return value


def _clean(text: str) -> str:
    """Half a surrogate pair is no character, and a NUL would end the text."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
