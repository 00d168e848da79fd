"""OpenAI's Responses: read into a `Wish`, answered as an object or a stream of named events.

Pure. Nothing is stored, so a conversation comes whole with each request.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from engine import Finish
from parting import Called, Part, Said
from replies import Shape
from wishes import Json, Refused, Wish, read_chat

_PASSED = ("model", "temperature", "top_p", "top_k", "seed", "stop", "stream", "ignore_eos")


def read_response(body: Json) -> Wish:
    """A request to `/v1/responses`, by way of the chat it stands for."""
    if body.get("previous_response_id") or body.get("conversation"):
        raise Refused(
            "Nothing is stored here: send the whole conversation as 'input'.",
            param="previous_response_id",
            code="unsupported_parameter",
        )
    chat: dict[str, Any] = {name: body[name] for name in _PASSED if name in body}
    chat["messages"] = list(_messages(body))
    chat["max_tokens"] = body.get("max_output_tokens")
    chat["tool_choice"] = body.get("tool_choice")
    if tools := body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in tools] if isinstance(tools, list) else tools
    text = body.get("text")
    if isinstance(text, dict):
        chat["response_format"] = text.get("format")
    return read_chat(chat)


def _messages(body: Json) -> Iterator[dict[str, Any]]:
    if instructions := body.get("instructions"):
        yield {"role": "system", "content": instructions}
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise Refused("'input' must be a text or a list of items.", param="input")
    for item in given:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        match kind:
            case "message":
                yield {"role": item.get("role"), "content": item.get("content")}
            case "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
                call = {"id": item.get("call_id"), "type": "function", "function": function}
                yield {"role": "assistant", "content": None, "tool_calls": [call]}
            case "function_call_output":
                yield {"role": "tool", "content": item.get("output")}
            case "reasoning":
                pass
            case _:
                raise Refused(f"'input': there are no items of the type '{kind}'.", param="input")


def _tool(tool: object) -> object:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise Refused("'tools': this engine knows functions only.", param="tools")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


class ResponseShape(Shape):
    """`/v1/responses`. Its items are a message, unless there is no text, and calls."""

    last_word = b""

    def __init__(self, wish: Wish, model: str) -> None:
        super().__init__(wish, model, "response", "resp")
        self._number = 0
        self._message = f"msg_{secrets.token_hex(12)}"
        self._open = False
        self._items: list[dict[str, Any]] = []

    def begin(self) -> Iterator[bytes]:
        """See `Shape.begin`."""
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response("in_progress"))

    def part(self, part: Part) -> Iterator[bytes]:
        """See `Shape.part`."""
        yield from super().part(part)
        match part:
            case Said():
                if not self._open:
                    yield from self._open_message()
                yield self._event("response.output_text.delta", **self._at(), delta=part.text)
            case Called():
                yield from self._close_message()
                yield from self._called(part)

    def finish(self, finish: Finish) -> Iterator[bytes]:
        """See `Shape.finish`."""
        yield from super().finish(finish)
        if not self._open and not self._items:
            yield from self._open_message()
        yield from self._close_message()
        status = "incomplete" if finish.reason == "length" else "completed"
        yield self._event(f"response.{status}", response=self._response(status))

    def failed(self, error: Refused) -> Iterator[bytes]:
        """See `Shape.failed`."""
        words = {"code": "server_error", "message": str(error)}
        failed = {**self._response("failed"), "error": words}
        yield self._event("response.failed", response=failed)

    def whole(self) -> dict[str, Any]:
        """See `Shape.whole`."""
        assert self.ended is not None
        return self._response("incomplete" if self.ended.reason == "length" else "completed")

    def _open_message(self) -> Iterator[bytes]:
        self._open = True
        item = {**self._item("in_progress"), "content": []}
        index = len(self._items)
        yield self._event("response.output_item.added", output_index=index, item=item)
        empty = {"type": "output_text", "text": "", "annotations": []}
        yield self._event("response.content_part.added", **self._at(), part=empty)

    def _close_message(self) -> Iterator[bytes]:
        if not self._open:
            return
        item = self._item("completed")
        yield self._event("response.output_text.done", **self._at(), text=self.text)
        yield self._event("response.content_part.done", **self._at(), part=item["content"][0])
        index = len(self._items)
        self._items.append(item)
        self._open, self.text = False, ""
        self._message = f"msg_{secrets.token_hex(12)}"
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _called(self, call: Called) -> Iterator[bytes]:
        item = {
            "type": "function_call",
            "id": f"fc_{secrets.token_hex(12)}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        index, at = len(self._items), {"item_id": item["id"], "output_index": len(self._items)}
        begun = {**item, "arguments": "", "status": "in_progress"}
        self._items.append(item)
        name = "response.function_call_arguments"
        yield self._event("response.output_item.added", output_index=index, item=begun)
        yield self._event(f"{name}.delta", **at, delta=call.arguments)
        yield self._event(f"{name}.done", **at, arguments=call.arguments)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _at(self) -> dict[str, Any]:
        return {"item_id": self._message, "output_index": len(self._items), "content_index": 0}

    def _item(self, status: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": self.text, "annotations": []}]
        return {
            "type": "message",
            "id": self._message,
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, status: str) -> dict[str, Any]:
        ended = self.ended
        usage = None
        if ended is not None:
            usage = {
                "input_tokens": ended.prompt_tokens,
                "output_tokens": ended.tokens,
                "total_tokens": ended.prompt_tokens + ended.tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            }
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._head["id"],
            "object": "response",
            "created_at": self._head["created"],
            "model": self._head["model"],
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "output": list(self._items),
            "usage": usage,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def _event(self, name: str, **content: object) -> bytes:
        document = {"type": name, "sequence_number": self._number, **content}
        self._number += 1
        text = json.dumps(document, ensure_ascii=False)
        return f"event: {name}\ndata: {text}\n\n".encode()
