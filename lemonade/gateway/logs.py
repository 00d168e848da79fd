"""What engines print and the server logs: the last lines and those to come, as text or JSON.

A follower of a model goes on when it is unloaded and loaded again, until the client leaves or the
server ends. Whoever reads too slowly is told how many lines are missing; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, cast

from aiohttp import WSMsgType, web

from lemonade.core.errors import LemonadeError, MalformedRequest, NotLoaded
from lemonade.core.logs import LEVELS, LevelRule, LogLevel, LogRecord
from lemonade.core.records import dataclass
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import SOCKET_PROTOCOL, Route
from lemonade.residency import log_file_of
from lemonade.supervisor import Follower

MAX_LINES: Final = 2000

LOG_TAIL_BYTES: Final = 256 << 10
"""How much of a log file is looked at for its last lines."""

_MOST_OF_A_MESSAGE: Final = 64 << 10

_SEVERITIES: Final = {"debug": "Debug", "info": "Info", "warning": "Warn", "error": "Error"}


def log_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/logs", logs),
        Route("GET", "/logs/stream", stream, socket=True),
        Route("GET", "/logs/stream", stream, prefixed=False, socket=True),
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a client asked for."""

    lines: int
    level: LogLevel
    as_json: bool
    follow: bool

    def shown(self, records: Iterable[LogRecord]) -> list[LogRecord]:
        """The last of those that are grave enough."""
        grave = [record for record in records if record.at_least(self.level)]
        return grave[-self.lines :] if self.lines else []

    def written(self, record: LogRecord) -> bytes:
        """One line of the answer."""
        text = json.dumps(record.as_json(), ensure_ascii=False) if self.as_json else record.text
        return f"{text}\n".encode("utf-8", "replace")


async def logs(request: web.Request) -> web.StreamResponse:
    """What an engine printed: `?model=&lines=&level=&format=json&follow=true`.

    Of a model that is not loaded, the end of what its last engine left: that is where the reason
    of a failed load is.
    """
    parts, wanted = parts_of(request), _read_query(request)
    name = request.query.get("model", "")
    resident = parts.pool.find(name) if name else parts.pool.most_recent
    if resident is None and not name:
        raise NotLoaded("No model is loaded.", remedy="`lemonade ps` shows what is.")
    served = (
        resident.served_name
        if resident is not None
        else parts.registry.public_name(parts.registry.resolve(name))
    )
    left: tuple[LogRecord, ...] = ()
    if resident is None or resident.instance is None:
        left = await asyncio.to_thread(_left_behind, parts, served, may_be_none=wanted.follow)
        resident = None
    # Nothing comes between the last lines and those that follow: nobody else has a turn here.
    with parts.journal.follow(model=served, level=wanted.level) as follower:
        instance = resident.instance if resident is not None else None
        last = wanted.shown(instance.records() if instance is not None else left)
        kind = "application/x-ndjson" if wanted.as_json else "text/plain"
        response = web.StreamResponse(headers={"Content-Type": f"{kind}; charset=utf-8"})
        if request.method == "HEAD":
            return web.Response(content_type=kind, charset="utf-8")
        await response.prepare(request)
        for record in last:
            await response.write(wanted.written(record))
        while wanted.follow and (line := await follower.next()) is not None:
            await response.write(wanted.written(line))
    await response.write_eof()
    return response


def _read_query(request: web.Request) -> _Wanted:
    lines = request.query.get("lines", "100")
    if not (lines.isascii() and lines.isdigit() and int(lines[:9]) <= MAX_LINES):
        raise MalformedRequest(f"'lines' must be a number from 0 to {MAX_LINES}.")
    level = request.query.get("level", "debug")
    if level not in LEVELS:
        raise MalformedRequest(f"'level' must be one of: {', '.join(LEVELS)}.")
    form = request.query.get("format", "text")
    if form not in ("text", "json"):
        raise MalformedRequest("'format' must be 'text' or 'json'.")
    return _Wanted(
        lines=int(lines),
        level=cast("LogLevel", level),
        as_json=form == "json",
        follow=request.query.get("follow") == "true",
    )


def _left_behind(parts: Parts, served: str, *, may_be_none: bool) -> tuple[LogRecord, ...]:
    """The end of the log file of a model that is not loaded.

    Raises:
        NotLoaded: no engine of it has left anything, and there has to be something.
    """
    file = log_file_of(parts.directories.state / "logs", served)
    try:
        size = file.stat().st_size
        with file.open("rb") as log:
            log.seek(max(0, size - LOG_TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError as error:
        if may_be_none:
            return ()
        raise NotLoaded(
            f"{served} is not loaded, and no engine of it has left a log.",
            remedy="`lemonade ps` shows what is loaded.",
        ) from error
    rules = _rules_of(parts, served)
    return tuple(
        LogRecord(0, None, served, None, "output", line, rules) for line in text.splitlines()
    )


def _rules_of(parts: Parts, served: str) -> tuple[LevelRule, ...]:
    recipe = parts.catalog.recipes.get(parts.registry.resolve(served).recipe)
    levels = recipe.upstream.levels if recipe is not None and recipe.upstream is not None else ()
    return tuple(LevelRule(one.level, one.pattern) for one in levels)


async def stream(request: web.Request) -> web.StreamResponse:
    """A WebSocket: all lines of the server and its engines, live, after `logs.subscribe`."""
    parts = parts_of(request)
    socket = web.WebSocketResponse(protocols=(SOCKET_PROTOCOL,), max_msg_size=_MOST_OF_A_MESSAGE)
    if request.method == "HEAD" or not socket.can_prepare(request).ok:
        raise MalformedRequest(
            "This is a WebSocket.", remedy="Connect to it with ws://; `GET P/logs` is plain HTTP."
        )
    await socket.prepare(request)
    with contextlib.suppress(ConnectionError):
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(_close_at_the_end(parts, socket))
            try:
                await _converse(parts, socket, group)
            finally:
                closing.cancel()
    return socket


async def _close_at_the_end(parts: Parts, socket: web.WebSocketResponse) -> None:
    await parts.journal.closed.wait()
    await socket.close()


async def _converse(parts: Parts, socket: web.WebSocketResponse, group: asyncio.TaskGroup) -> None:
    sender: asyncio.Task[None] | None = None
    try:
        async for message in socket:
            try:
                after = _understood(parts, message.data if message.type is WSMsgType.TEXT else "")
            except LemonadeError as error:
                fault = {"message": error.message, "type": "invalid_request_error"}
                await socket.send_json({"type": "error", "error": fault})
                continue
            if after is None:
                await socket.send_json({"type": "auth.ok"})
                continue
            if sender is not None:
                sender.cancel()
            follower = parts.journal.follow()
            entries = [_entry(record) for record in parts.journal.recent(after)]
            sender = group.create_task(_send(socket, follower, entries))
    finally:
        if sender is not None:
            sender.cancel()


def _understood(parts: Parts, text: str) -> int | None:
    """The number after which lines are wanted, or `None` for a key that is accepted.

    Raises:
        MalformedRequest: it is no message of ours, or the key is wrong.
    """
    try:
        message: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("The message is not JSON.") from error
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "auth":
        key = message.get("token") or message.get("api_key")
        if not parts.access.admits("regular", f"Bearer {key}"):
            raise MalformedRequest("Invalid or missing API key.")
        return None
    if kind != "logs.subscribe":
        raise MalformedRequest("The only message here is 'logs.subscribe'.")
    after = message.get("after_seq")
    if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
        raise MalformedRequest("'after_seq' must be an integer or null.")
    return after or 0


async def _send(
    socket: web.WebSocketResponse, follower: Follower, entries: list[dict[str, Any]]
) -> None:
    seq = entries[-1]["seq"] if entries else 0
    with follower, contextlib.suppress(ConnectionError):
        await socket.send_json({"type": "logs.snapshot", "entries": entries})
        while (record := await follower.next()) is not None:
            seq = record.seq or seq  # a note on what is missing has no number of its own
            await socket.send_json({"type": "logs.entry", "entry": _entry(record, seq)})


def _entry(record: LogRecord, seq: int | None = None) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.time or 0, UTC).astimezone()
    timestamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    severity = _SEVERITIES[record.level]
    tag = record.source or "logs"
    return {
        "seq": record.seq if seq is None else seq,
        "timestamp": timestamp,
        "severity": severity,
        "tag": tag,
        "line": f"{timestamp} [{severity}] ({tag}) {record.text}",
    }
