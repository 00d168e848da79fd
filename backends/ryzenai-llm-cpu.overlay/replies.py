"""Answers in the shapes of OpenAI's chat and text completions, whole and as streams of events.

Pure. A shape is made for one request and told the parts of its answer in turn.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from engine import Finish
from parting import Called, Part, Said, Thought
from wishes import Refused, Wish

LAST_WORD = b"data: [DONE]\n\n"


def event(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def usage_of(finish: Finish) -> dict[str, int]:
    """What an answer cost."""
    total = finish.prompt_tokens + finish.tokens
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.tokens,
        "total_tokens": total,
    }


class Shape:
    """One answer; `begin`, then `part` any number of times, then `finish`.

    Each yields the events of a stream; whoever wants it in one piece passes over them and asks for
    the `whole` in the end.
    """

    last_word = LAST_WORD

    def __init__(self, wish: Wish, model: str, kind: str, prefix: str) -> None:
        self._wish = wish
        self._kind = kind
        self._head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self.text = ""
        self.reasoning = ""
        self.calls: list[Called] = []
        self.ended: Finish | None = None

    def begin(self) -> Iterator[bytes]:
        """The prompt was accepted."""
        yield from ()

    def part(self, part: Part) -> Iterator[bytes]:
        """More of the answer."""
        match part:
            case Said():
                self.text += part.text
            case Thought():
                self.reasoning += part.text
            case Called():
                self.calls.append(part)
        yield from ()

    def finish(self, finish: Finish) -> Iterator[bytes]:
        """It has ended."""
        self.ended = finish
        yield from ()

    def failed(self, error: Refused) -> Iterator[bytes]:
        """It has ended badly, after the stream began."""
        yield event(error.body())

    def whole(self) -> dict[str, Any]:
        """The answer in one piece; only when it has ended."""
        raise NotImplementedError

    def _chunk(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        return event({**self._head, "object": self._kind, "choices": choices, **more})

    def _last_events(self, finish: Finish) -> Iterator[bytes]:
        if self._wish.usage_wanted:
            yield self._chunk([], usage=usage_of(finish))


class ChatShape(Shape):
    """`/v1/chat/completions`."""

    def __init__(self, wish: Wish, model: str) -> None:
        super().__init__(wish, model, "chat.completion.chunk", "chatcmpl")

    def begin(self) -> Iterator[bytes]:
        """See `Shape.begin`."""
        yield self._delta({"role": "assistant", "content": ""})

    def part(self, part: Part) -> Iterator[bytes]:
        """See `Shape.part`."""
        yield from super().part(part)
        match part:
            case Said():
                yield self._delta({"content": part.text})
            case Thought():
                yield self._delta({"reasoning_content": part.text})
            case Called():
                index = len(self.calls) - 1
                yield self._delta({"tool_calls": [{"index": index, **_call(part)}]})

    def finish(self, finish: Finish) -> Iterator[bytes]:
        """See `Shape.finish`."""
        yield from super().finish(finish)
        yield self._delta({}, finish.reason)
        yield from self._last_events(finish)

    def whole(self) -> dict[str, Any]:
        """See `Shape.whole`."""
        assert self.ended is not None
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["content"] = self.text or None
            message["tool_calls"] = [_call(call) for call in self.calls]
        choice = {"index": 0, "message": message, "finish_reason": self.ended.reason}
        usage = usage_of(self.ended)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage}

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": reason}])


class TextShape(Shape):
    """`/v1/completions`."""

    def __init__(self, wish: Wish, model: str) -> None:
        super().__init__(wish, model, "text_completion", "cmpl")

    def part(self, part: Part) -> Iterator[bytes]:
        """See `Shape.part`."""
        yield from super().part(part)
        if isinstance(part, Said):
            yield self._chunk([self._choice(part.text, None)])

    def finish(self, finish: Finish) -> Iterator[bytes]:
        """See `Shape.finish`."""
        yield from super().finish(finish)
        yield self._chunk([self._choice("", finish.reason)])
        yield from self._last_events(finish)

    def whole(self) -> dict[str, Any]:
        """See `Shape.whole`."""
        assert self.ended is not None
        choices = [self._choice(self.text, self.ended.reason)]
        usage = usage_of(self.ended)
        return {**self._head, "object": self._kind, "choices": choices, "usage": usage}

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _call(call: Called) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
