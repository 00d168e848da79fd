"""What a request cost, read off the bytes that pass by.

The tap sees every block of an answer and does next to nothing with it: it keeps the end. When the
answer is over the end is searched for what engines say about themselves. Of a stream the first
events are looked at too, until one has something that a model made. Nothing is altered, and an
answer that says nothing costs nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from lemonade.core.inference import Usage

STREAM_TAIL: Final = 2 * 1024
"""How much of a stream's end is kept, in the memory of every stream that is under way. Usage comes
with the last event or the one before; both together are shorter."""

BODY_TAIL: Final = 64 * 1024
"""How much of the end of an answer in one piece is kept. Most answers are smaller."""

_SHORT: Final = 4 * 1024
"""How long an answer in one piece may be to be read as a whole instead of from its end."""

_LAST_WORD: Final = b"data: [DONE]"

_LAST_WORD_WITHIN: Final = 64
"""How far from the end it may stand: line ends and the framing of the last chunks follow it."""

BEGINNING: Final = 64 * 1024
"""How long an event at the beginning of a stream may be to be looked at."""

_Json: TypeAlias = Mapping[str, Any]
_N = TypeVar("_N", int, float)

_CHUNK_SIZE: Final = re.compile(rb"\r\n[0-9A-Fa-f]{1,15}(?:;[^\r\n]*)?\r\n")
_BEFORE_VALUE: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_REASON: Final = re.compile(rb'"([A-Za-z_]{1,40})"')
_EVENT_END: Final = re.compile(rb"\n\n|\r\n\r\n")
_RESPONSE_EVENT: Final = re.compile(rb'(?:(?:^|\n)event: ?|"type": ?")(response\.[a-z_.]+)')
_ANNOUNCEMENTS: Final = frozenset(
    {b"response.created", b"response.queued", b"response.in_progress"}
)
"""What engines say of a response before they have begun to work on it."""
_MADE: Final = re.compile(
    rb'"(?:content|reasoning_content|reasoning|text|refusal|name|arguments)"[ \t]*:[ \t]*"(?!")'
)
"""A piece of an answer, of thoughts or of a call, that is not empty."""
_OBJECT_LIMIT: Final = 4096
_BACKSLASH: Final = 0x5C
_SCAN: Final = json.JSONDecoder().raw_decode


class UsageTap:
    """Watches one answer.

    Made when the request arrived; `finish` may be called once the answer is over, whether or not
    it was complete. Invariant: it holds on to less than its tail and one block; to twice that if
    somebody else puts blocks to the others.

    Attributes:
        blocks: the end of what it was shown.
    """

    __slots__ = (
        "_beginning",
        "_begun_at",
        "_clock",
        "_first_at",
        "_heard_at",
        "_in_one",
        "_keep",
        "_mark",
        "_on_first",
        "_size",
        "_started",
        "_stream",
        "blocks",
    )

    def __init__(
        self,
        *,
        stream: bool,
        started: float | None = None,
        on_first: Callable[[], None] | None = None,
        look: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to watch.

        Args:
            stream: whether the answer is a stream of events.
            started: when the request arrived, on the same clock; now, if it is not given.
            on_first: called when the first bytes of the body come.
            look: look for the first piece; without use where an engine says its times itself.
            clock: seconds.
        """
        self._stream = stream
        self._keep = STREAM_TAIL if stream else BODY_TAIL
        self._clock = clock
        self._on_first = on_first
        self._started = clock() if started is None else started
        self._heard_at: float | None = None
        self._begun_at: float | None = None
        self._first_at: float | None = None
        self._in_one = True
        self._beginning: bytes | None = b"" if stream and look else None
        self.blocks: list[bytes] = []  # a deque is 600 bytes more, and these are few
        self._size = 0
        self._mark = 0
        """How many blocks were there when others began to be put there, or were last trimmed."""

    def feed(self, block: bytes) -> None:
        """Take note of the next bytes of the body, with or without chunk framing."""
        if self._heard_at is None:
            self._heard_at = self._clock()
            if self._on_first is not None:
                self._on_first()
        if self._beginning is not None:
            self._look(self._beginning + block)
        elif self._in_one:
            self._in_one = False
        blocks = self.blocks
        if self._mark:
            self._mark = 0
            self._size = sum(map(len, blocks))
        blocks.append(block)
        size = self._size + len(block)
        while size - len(blocks[0]) >= self._keep:
            size -= len(blocks.pop(0))
        self._size = size

    @property
    def looking(self) -> bool:
        """Whether it has to be fed; otherwise blocks may be put to the others, and be trimmed."""
        return self._in_one or self._beginning is not None

    def trim(self) -> int:
        """Forget the blocks that were there the last time.

        Returns:
            How many bytes may be put to the others until the next time.
        """
        blocks = self.blocks
        del blocks[: self._mark]
        self._mark = len(blocks)
        return self._keep

    @property
    def saw_end(self) -> bool:
        """Whether a stream's last word, `data: [DONE]`, has passed: all that may lack is framing.

        Many clients hang up on it without waiting for the end of the body.
        """
        return self._stream and _LAST_WORD in b"".join(self.blocks)[-_LAST_WORD_WITHIN:]

    def finish(self, ended: float | None = None) -> Usage:
        """What the answer says about its cost. Never raises.

        Args:
            ended: when it was over, on the same clock; now, if it is not given.
        """
        if self._heard_at is None:
            return Usage()
        blocks = self.blocks
        if len(blocks) == 1 and not self._stream and len(blocks[0]) <= _SHORT:
            usage = _read_short(blocks[0])
            if usage is not None:
                blocks.clear()
                return usage
        tail = b"".join(blocks)[-self._keep :]
        blocks.clear()
        if self._stream:
            usage = _read_last_event(tail)
            if usage is not None:
                return self._measured(usage, ended)
        used, timings = _last_object(tail, b'"usage"'), _last_object(tail, b'"timings"')
        if used is None and b"\r\n" in tail:
            # A chunk may have ended in the middle of what is looked for. Engines rarely do that,
            # and size lines do not occur in JSON.
            tail = _CHUNK_SIZE.sub(b"", tail)
            used, timings = _last_object(tail, b'"usage"'), _last_object(tail, b'"timings"')
        usage = _read_usage(used or {}, timings or {}, _last_reason(tail))
        return self._measured(usage, ended) if self._stream else usage

    def _look(self, text: bytes) -> None:
        """Go through the events that came; stop looking at the first that has something made."""
        *events, self._beginning = _EVENT_END.split(text)
        for event in events:
            # The search costs more than everything else here; few streams have such events.
            announced = _RESPONSE_EVENT.search(event) if b"response." in event else None
            if announced is not None:
                begun = announced[1] not in _ANNOUNCEMENTS
                made = announced[1].endswith(b".delta")
            else:
                begun = b"data:" in event
                made = begun and _MADE.search(event) is not None
            if begun and self._begun_at is None:
                self._begun_at = self._clock()
            if made:
                self._first_at = self._clock()
                self._beginning = None
                return
        if len(self._beginning) > BEGINNING:
            self._beginning = b""

    def _measured(self, usage: Usage, ended: float | None) -> Usage:
        """With the times of a stream that the engine did not say itself.

        Engines that do not say them send their first event with the first token, also where that
        token is kept back until it is clear whether it belongs to a call. So an answer was made
        from the first event to the end. What came all at once says nothing about that.
        """
        if usage.time_to_first_token is not None and usage.tokens_per_second is not None:
            return usage
        heard, now = self._heard_at, self._clock() if ended is None else ended
        assert heard is not None
        begun = heard if self._begun_at is None else self._begun_at
        first = begun if self._first_at is None else self._first_at
        speed, made = usage.tokens_per_second, usage.output_tokens
        if speed is None and made:
            whole = self._in_one or made == 1 or now <= begun
            took = now - (self._started if whole else begun)
            speed = made / took if took > 0 else None
        to_first = usage.time_to_first_token
        if to_first is None:
            to_first = first - self._started
        return Usage(
            input_tokens=usage.input_tokens,
            output_tokens=made,
            prompt_tokens=usage.prompt_tokens,
            cache_tokens=usage.cache_tokens,
            time_to_first_token=to_first,
            tokens_per_second=speed,
            finish_reason=usage.finish_reason,
        )


def usage_of(answer: bytes) -> Usage:
    """What an answer in one piece says about its cost. Never raises."""
    usage = _read_short(answer) if len(answer) <= _SHORT else None
    if usage is None:
        tap = UsageTap(stream=False)
        tap.feed(answer)
        usage = tap.finish()
    return usage


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Used(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Short(msgspec.Struct):
    """An answer in one piece of the usual shape."""

    usage: _Used
    choices: list[_Choice] = []
    timings: dict[str, Any] | None = None


_SHORT_ANSWER: Final = msgspec.json.Decoder(_Short)


def _read_last_event(tail: bytes) -> Usage | None:
    """What the last event with usage says; `None` if it is not of the usual shape."""
    at = tail.rfind(b'"usage"')
    beginning, end = tail.rfind(b"data: {", 0, at), tail.find(b"\n", at)
    if at < 0 or beginning < 0 or end < 0:
        return None
    if b'"timings"' in tail[end:]:
        return None
    return _read_short(tail[beginning + 6 : end], tail[:beginning])


def _read_short(body: bytes, before: bytes = b"") -> Usage | None:
    """What a short answer says; `None` if it is not of the usual shape, which proves nothing.

    Args:
        body: JSON.
        before: what the same stream said before it; the reason for its end may stand there.
    """
    try:
        answer = _SHORT_ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    used, choices = answer.usage, answer.choices
    reason = choices[0].finish_reason if choices else None
    prompt, output = used.prompt_tokens, used.completion_tokens
    details = used.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    if prompt is None or len(choices) > 1 or min(prompt, output or 0, cached or 0) < 0:
        return None
    if before:
        if answer.timings is None and b'"timings"' in before:
            return None
        reason = reason or _last_reason(before)
    if answer.timings is not None:
        told = {"prompt_tokens": prompt, "completion_tokens": output}
        more = {"prompt_tokens_details": {"cached_tokens": cached}}
        return _read_usage({**told, **more}, answer.timings, reason)
    return Usage(
        input_tokens=prompt if cached is None else max(0, prompt - cached),
        output_tokens=output,
        prompt_tokens=prompt,
        cache_tokens=cached,
        finish_reason=reason,
    )


def _read_usage(
    used: _Json,
    timings: _Json,
    finish_reason: str | None,
) -> Usage:
    """What the engine says, times in seconds.

    Source: `prompt_n`, `cache_n`, `prompt_ms`, `predicted_n` and `predicted_per_second` are
    llama.cpp's; `prefill_duration_ttft` and `decoding_speed_tps` are FastFlowLM's.
    """
    prompt = _count(used, "prompt_tokens", "input_tokens")
    output = _count(used, "completion_tokens", "output_tokens")
    cached: int | None = None
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = used.get(name)
        if isinstance(details, dict):
            cached = _count(details, "cached_tokens")
    fresh = prompt if prompt is None or cached is None else max(0, prompt - cached)
    first = _number(used, "prefill_duration_ttft")
    speed = _number(used, "decoding_speed_tps")
    if timings:
        fresh = _first_known(_count(timings, "prompt_n"), fresh)
        output = _first_known(_count(timings, "predicted_n"), output)
        cached = _first_known(_count(timings, "cache_n"), cached)
        prompt_ms = _number(timings, "prompt_ms")
        first = first if prompt_ms is None else prompt_ms / 1000
        speed = _first_known(_number(timings, "predicted_per_second"), speed)
        if prompt is None and fresh is not None:
            prompt = fresh + (cached or 0)
    return Usage(
        input_tokens=fresh,
        output_tokens=output,
        prompt_tokens=prompt,
        cache_tokens=cached,
        time_to_first_token=first,
        tokens_per_second=speed,
        finish_reason=finish_reason,
    )


def _values(tail: bytes, key: bytes) -> Iterator[int]:
    """Where values of a key begin, the last first.

    Whatever an answer is about, in JSON a quote inside a string is escaped. So a quoted name with
    a colon after it and no backslash before it is a key. It may be the answer's own or that of a
    `response` inside it; nothing else in these dialects has keys of such names.
    """
    position = tail.rfind(key)
    while position >= 0:
        colon = _BEFORE_VALUE.match(tail, position + len(key))
        if colon is not None and (position == 0 or tail[position - 1] != _BACKSLASH):
            yield colon.end()
        position = tail.rfind(key, 0, position)


def _last_object(tail: bytes, key: bytes) -> _Json | None:
    """The last value of that key that is an object."""
    for start in _values(tail, key):
        if tail[start : start + 1] == b"{":
            text = tail[start : start + _OBJECT_LIMIT].decode("utf-8", "replace")
            try:
                value, _ = _SCAN(text)
            except (ValueError, RecursionError):
                return None
            return value if isinstance(value, dict) else None
    return None


def _last_reason(tail: bytes) -> str | None:
    """The last reason for ending that is not null."""
    for start in _values(tail, b'"finish_reason"'):
        reason = _REASON.match(tail, start)
        if reason is not None:
            return reason[1].decode()
    return None


def _count(source: _Json, *names: str) -> int | None:
    for name in names:
        value = source.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
            return int(value)
    return None


def _number(source: _Json, name: str) -> float | None:
    value = source.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    return None


def _first_known(preferred: _N | None, otherwise: _N | None) -> _N | None:
    return otherwise if preferred is None else preferred
