"""Operations with progress: as a plain JSON answer, or as server-sent events while they run.

Frames are `progress`, then one `complete` or `error`; where nothing was to be done, `complete` is
all. The operation runs inside the request: a client that leaves cancels its part in it (the deed
itself ends only with its last participant).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from lemonade.core.errors import LemonadeError
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.sse import render_event
from lemonade.gateway.garbage import printable

log = logging.getLogger(__name__)

Operate = Callable[[ProgressListener], Awaitable[JsonObject]]
"""A deed that reports progress; its result is the plain answer."""

KEPT_FRAMES: Final = 64
"""Frames kept for a slow reader; older ones are dropped, as a newer one says more."""


def ignore(_progress: Progress) -> None:
    """A listener for those who did not ask."""


async def stream_operation(
    request: web.Request,
    operate: Operate,
    describe: Callable[[LemonadeError], JsonObject],
    *,
    tell_result: bool = False,
) -> web.StreamResponse:
    """Run a deed and send its progress as events; the status is 200 whatever comes of it.

    The last event has the last progress, or with `tell_result` what the plain answer would be.
    """
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    frames: deque[Progress] = deque(maxlen=KEPT_FRAMES)
    news = asyncio.Event()
    last: Progress | None = None

    def listen(progress: Progress) -> None:
        frames.append(progress)
        news.set()

    failed: LemonadeError | None = None
    result: JsonObject = {}

    async def work() -> None:
        nonlocal failed, result
        try:
            result = await operate(listen)
        except LemonadeError as error:
            failed = error
        except Exception:  # the status is sent: an event must say it, and the log more
            log.exception("%s failed", request.path)
            failed = LemonadeError("The server made a mistake.", remedy="Its log tells more.")
        finally:
            news.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        try:
            while frames or not task.done():
                await news.wait()
                news.clear()
                while frames:
                    last = frames.popleft()
                    if not last.complete:
                        await response.write(render_event("progress", last.as_json()))
        except ConnectionResetError:
            task.cancel()  # the client left while we wrote
            return response
    if task.cancelled():
        failed = LemonadeError("It was cancelled.", remedy="Ask again: what is here is kept.")
    if failed is not None:
        log.info("%s: %s", request.path, printable(failed.message))
        await response.write(render_event("error", describe(failed)))
    else:
        final = result if tell_result else _finished(last)
        await response.write(render_event("complete", final))
    await response.write_eof()
    return response


def _finished(last: Progress | None) -> JsonObject:
    return {"status": "ok"} if last is None else {**last.as_json(), "percent": 100}
