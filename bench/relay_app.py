"""The relay alone behind aiohttp: no catalog, no residency, no access rules.

Shows what the hot path costs by itself. `python -m bench.relay_app --port 8000 --engine 9001`
"""

from __future__ import annotations

import argparse
import asyncio
import time

import msgspec
import uvloop
from aiohttp import web

from lemonade.core.process import Endpoint
from lemonade.gateway.streaming import RelayOutcome, relay
from lemonade.telemetry import UsageTap
from lemonade.upstream import Upstream, UpstreamRequest

BODY_LIMIT = 128 * 1024 * 1024
PASSED = ("Content-Type", "Accept", "User-Agent")
EXTRA_HEADERS = (("Vary", "Origin"), ("X-Request-Id", "0123456789abcdef"))


class Wanted(msgspec.Struct):
    """What the relay has to know of a request."""

    model: str
    stream: bool = False


_DECODER = msgspec.json.Decoder(Wanted)


def application(engine: Endpoint) -> web.Application:
    """One route that relays to the engine."""
    upstream = Upstream(engine)

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.monotonic()
        body = await request.read()
        wanted = _DECODER.decode(body)
        tap = UsageTap(stream=wanted.stream, started=started)
        headers = request.headers
        outcome = await relay(
            request,
            upstream,
            UpstreamRequest(
                method="POST",
                path=request.path,
                body=body,
                headers=tuple((name, headers[name]) for name in PASSED if name in headers),
                patience=600.0,
            ),
            extra_headers=EXTRA_HEADERS,
            tap=tap,
            buffer_errors=True,
        )
        tap.finish()
        if isinstance(outcome, RelayOutcome):
            return outcome.response
        return web.Response(status=outcome.status, body=outcome.body)

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post("/v1/chat/completions", handle)
    app.router.add_get("/health", health)
    return app


async def serve(port: int, engine: Endpoint) -> None:
    """Serve until the process is ended."""
    runner = web.AppRunner(application(engine), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine", type=int, required=True, help="port of the engine")
    options = parser.parse_args()
    uvloop.run(serve(options.port, Endpoint("127.0.0.1", options.engine)))


if __name__ == "__main__":
    main()
