"""What a stream of the server says, event by event.

From bytes in any cut to `Progress` of a pull or an installation and to `ChatDelta` of an answer.
An error event, and a stream that ends before it said it was complete, are raised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from lemonade.client.replies import refusal
from lemonade.core.errors import ConnectionLost
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.records import dataclass
from lemonade.core.sse import SseEvent, SseReader


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of an answer. Text and reasoning may be empty; the rest comes near the end.

    Attributes:
        text: to show.
        reasoning: what the model thinks aloud; not part of the answer.
        finish_reason: `stop`, `length`, `tool_calls`, ... once known.
        usage: counts of tokens, as the OpenAI interface has them.
        timings: what the engine measured, as llama.cpp has them.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: JsonObject | None = None
    timings: JsonObject | None = None


def read_transfer(chunks: Iterable[bytes]) -> Iterator[Progress]:
    """The progress of a pull or an installation; the last one is complete.

    Raises:
        ServerRefused: the server said `error`.
        ConnectionLost: the stream ended before it was complete.
    """
    for event in _events(chunks):
        data = _decode(event.data)
        if event.name == "error" or "error" in data:
            raise refusal(200, data)
        complete = event.name == "complete"
        yield _progress(data, complete=complete)
        if complete:
            return
    raise ConnectionLost(
        "The connection ended before the server said that it was done.",
        remedy="Run the same command again: what is already there is kept.",
    )


def read_result(chunks: Iterable[bytes], listen: ProgressListener) -> JsonObject:
    """What an operation came to; `listen` hears of its progress.

    Raises:
        ServerRefused: the server said `error`.
        ConnectionLost: the stream ended before it was complete.
    """
    for event in _events(chunks):
        data = _decode(event.data)
        if event.name == "error" or "error" in data:
            raise refusal(200, data)
        if event.name == "complete":
            return data
        listen(_progress(data, complete=False))
    raise ConnectionLost(
        "The connection ended before the server said that it was done.",
        remedy="`lemonade ps` shows what became of it.",
    )


def read_chat(chunks: Iterable[bytes]) -> Iterator[ChatDelta]:
    """The pieces of one streamed answer.

    Raises:
        ServerRefused: the server or the engine said `error`.
        ConnectionLost: the stream ended without `[DONE]`.
    """
    for event in _events(chunks):
        if event.data.strip() == "[DONE]":
            return
        data = _decode(event.data)
        if "error" in data:
            raise refusal(200, data)
        yield read_answer(data, "delta")
    raise ConnectionLost(
        "The answer broke off: the connection ended before it was complete.",
        remedy="`lemonade logs` shows what the engine said.",
    )


def read_answer(data: JsonObject, part: str) -> ChatDelta:
    """One chunk (`part` is `delta`) or one whole answer (`part` is `message`)."""
    choices = data.get("choices") or [{}]
    choice: JsonObject = choices[0] if isinstance(choices[0], dict) else {}
    said: JsonObject = choice.get(part) or {}
    return ChatDelta(
        text=said.get("content") or "",
        reasoning=said.get("reasoning_content") or said.get("reasoning") or "",
        finish_reason=choice.get("finish_reason"),
        usage=data.get("usage"),
        timings=data.get("timings"),
    )


def _events(chunks: Iterable[bytes]) -> Iterator[SseEvent]:
    reader = SseReader()
    for chunk in chunks:
        yield from reader.feed(chunk)


def _decode(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if isinstance(data, dict):
        return data
    raise ConnectionLost(
        "The server sent an event that is not a JSON object.",
        remedy="Does that address belong to a Lemonade server?",
    )


def _progress(data: JsonObject, *, complete: bool) -> Progress:
    def whole(key: str, absent: int = 0) -> int:
        value = data.get(key)
        return int(value) if isinstance(value, (int, float)) else absent

    return Progress(
        file=str(data.get("file") or ""),
        file_index=whole("file_index", 1),
        total_files=whole("total_files", 1),
        bytes_downloaded=whole("bytes_downloaded"),
        bytes_total=whole("bytes_total"),
        total_download_size=whole("total_download_size"),
        bytes_previously_downloaded=whole("bytes_previously_downloaded"),
        complete=complete,
        phase=str(data.get("phase") or ""),
        phase_percent=whole("phase_percent") if data.get("phase_percent") is not None else None,
        message=str(data.get("message") or ""),
    )
