"""One handler for every inference operation: read as far as needed, lease, relay."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from aiohttp import web
from msgspec import structs

from lemonade.catalog import Adapter
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    ConnectionLost,
    LemonadeError,
    MalformedRequest,
    UpstreamError,
    UpstreamRefused,
    WrongOperation,
)
from lemonade.core.events import RequestAskedAgain
from lemonade.core.inference import Inference, ModelType, Operation
from lemonade.dialects import (
    INFERENCE_ROUTES,
    read_inference,
    render_error,
    status_of,
    wrap_backend_error,
)
from lemonade.gateway.adapters import check_operation, choose_adapter
from lemonade.gateway.bodies import read_body
from lemonade.gateway.errors import REQUESTED_MODEL, json_response
from lemonade.gateway.fitting import fit
from lemonade.gateway.garbage import printable
from lemonade.gateway.middleware import HEADERS
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Handler, Route
from lemonade.gateway.streaming import BufferedError, SentResponse, relay
from lemonade.relay import REQUEST_ID, Prelude, finished
from lemonade.residency import Lease, Resident
from lemonade.telemetry import UsageTap
from lemonade.upstream import UpstreamRequest

log = logging.getLogger(__name__)

ATTEMPTS: Final = 2
"""An engine that died before its first byte is loaded again, and asked again, once."""

NOTICED_WITHIN: Final = 0.3
"""Seconds after which the end of an engine that dropped a request has been seen, if it ended."""

_NEEDED_TYPE: Final = {
    Operation.CHAT: ModelType.LLM,
    Operation.COMPLETION: ModelType.LLM,
    Operation.RESPONSES: ModelType.LLM,
    Operation.EMBEDDINGS: ModelType.EMBEDDING,
    Operation.RERANK: ModelType.RERANKING,
}

_PASSED: Final = ("Accept", "User-Agent", "traceparent", "tracestate")
"""Headers of the client that the engine may see."""

_JSON: Final = ("Content-Type", "application/json")
"""What every body is that got here, whatever the client called it: some engines refuse others."""


def inference_routes() -> tuple[Route, ...]:
    """Every pass-through operation of the OpenAI dialect."""
    return tuple(
        Route(method, path, _handler(operation), errors="model")
        for operation, method, path in INFERENCE_ROUTES
    )


def _handler(operation: Operation) -> Handler:
    async def infer(request: web.Request) -> web.StreamResponse:
        parts = parts_of(request)
        started = time.monotonic()
        wanted = await _read(request, operation, parts)
        request[REQUESTED_MODEL] = wanted.model
        base, adapter = parts.adapters.split(wanted.model)
        if adapter is not None:
            wanted = structs.replace(wanted, model=base)
            check_operation(parts, parts.registry.resolve(base), wanted)
        check_type(parts, wanted)
        prelude = _prelude(request, wanted, parts)
        try:
            return await _answer(request, wanted, adapter, started, prelude)
        except LemonadeError as error:
            if prelude is None or not prelude.begun:
                raise
            log.info("%s %s: %s", request.method, request.path, printable(error.message))
            prelude.fail(render_error(error, status_of(error, "model"), shape="model"))
            return _told(request, prelude)
        finally:
            if prelude is not None:
                prelude.stop()

    infer.__doc__ = f"The engine's own answer to `{operation}`; loads the model if need be."
    return infer


def _prelude(request: web.Request, wanted: Inference, parts: Parts) -> Prelude | None:
    """For those who want a stream, and can be told before it begins."""
    settings = parts.configuration.settings
    if not wanted.stream or not settings.heartbeat_after_s or request.version < (1, 1):
        return None
    if request.transport is None:
        return None
    headers = request[HEADERS]

    def note(sent: int) -> None:
        # Should anything go wrong, aiohttp must know that it is too late for another answer.
        request.writer.output_size = sent

    return Prelude(
        request.transport,
        headers,
        stays=bool(request.keep_alive),
        after=settings.heartbeat_after_s,
        every=settings.heartbeat_every_s,
        step=lambda: parts.pool.step_of(wanted.model),
        note=note,
    )


def _told(request: web.Request, prelude: Prelude) -> web.StreamResponse:
    """What is left to return where the client was told in its stream."""
    stays = bool(request.keep_alive)
    return SentResponse(200, "OK", prelude.composed, sent=prelude.sent, stays=stays)


async def _answer(
    request: web.Request,
    wanted: Inference,
    adapter: Adapter | None,
    started: float,
    prelude: Prelude | None,
) -> web.StreamResponse:
    """Lease and relay; an engine that died before its first byte is asked again, once."""
    parts = parts_of(request)
    asked_before = bool(getattr(request.protocol, "asked_before", False))  # by a worker
    if asked_before:
        parts.bus.publish(RequestAskedAgain(wanted.model, wanted.operation))
    for attempt in range(1 + asked_before, ATTEMPTS + 1):
        async with await parts.pool.lease(wanted.model) as lease:
            again = attempt < ATTEMPTS
            asked = choose_adapter(wanted, lease.resident, adapter)
            try:
                return await _forward(request, asked, lease, started, prelude, may_retry=again)
            except (ConnectionLost, UpstreamRefused) as error:
                if not _retries(request, error, may_retry=again):
                    await explain(error, lease.resident)
                    raise
                log.warning("%s: %s Asking again.", wanted.model, error.message)
                parts.bus.publish(RequestAskedAgain(wanted.model, wanted.operation))
                lost = lease.resident
                lost.lost += 1
        await settled(lost)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _read(request: web.Request, operation: Operation, parts: Parts) -> Inference:
    """The request; for operations whose model is optional, that of the most recent resident."""
    body = await read_body(request)
    if operation not in (Operation.TOKENIZE, Operation.SLOTS):
        return read_inference(operation, body)
    recent = parts.pool.most_recent
    name = request.query.get("model", "")
    if operation is Operation.TOKENIZE:
        named = read_inference(operation, body).model
        name = name or named
    if not name:
        if recent is None:
            raise MalformedRequest("No model is loaded.", remedy="Load one, or name it.")
        name = recent.served_name
    return Inference(operation, name, stream=False, body=body)


def check_type(parts: Parts, wanted: Inference) -> None:
    """Refuse before anything is loaded what the model cannot do."""
    spec = parts.registry.resolve(wanted.model)
    needed = _NEEDED_TYPE.get(wanted.operation)
    if needed is not None and spec.type is not needed:
        raise WrongOperation(
            f"{wanted.model} is {_article(spec.type)} model; "
            f"{wanted.operation} needs {_article(needed)} model.",
            remedy="`lemonade list` shows what each model is for.",
        )
    recipe = parts.catalog.recipes.get(spec.recipe)
    serves = recipe is None or not recipe.runs or wanted.operation in recipe.upstream.operations
    if recipe is not None and not serves:
        raise WrongOperation(
            f"{recipe.title}, which runs {wanted.model}, does not serve {wanted.operation}.",
            remedy="Choose a model whose engine does.",
        )


def _article(kind: ModelType) -> str:
    return f"an {kind}" if kind[0] in "aeil" else f"a {kind}"


async def _forward(
    request: web.Request,
    wanted: Inference,
    lease: Lease,
    started: float,
    prelude: Prelude | None,
    *,
    may_retry: bool,
) -> web.StreamResponse:
    resident = lease.resident
    given, extra_headers = request.headers, request[HEADERS]
    headers = [(name, given[name]) for name in _PASSED if name in given]
    headers.append(("X-Request-Id", REQUEST_ID.get()))
    if wanted.body:
        headers.append(_JSON)
    path = resident.recipe.upstream.operations[wanted.operation]
    body, sieve = wanted.body, None
    if resident.recipe.upstream.adapts:
        body, sieve = await fit(wanted, lease)
    tail = request.match_info.get("tail", "")
    query = request.rel_url.raw_query_string if wanted.operation is Operation.SLOTS else ""
    upstream_request = UpstreamRequest(
        method=request.method,
        path=f"{path}{tail}?{query}" if query else path + tail,
        headers=tuple(headers),
        body=body,
        patience=float(parts_of(request).configuration.settings.global_timeout),
    )
    on_first = lease.streaming if wanted.stream else None
    times_itself = resident.recipe.upstream.usage == "llama-timings"
    tap = UsageTap(stream=wanted.stream, started=started, on_first=on_first, look=not times_itself)
    status, complete, goes_on = 499, False, False
    try:
        outcome = await relay(
            request,
            lease.instance.upstream,
            upstream_request,
            extra_headers=extra_headers,
            tap=tap,
            sieve=sieve,
            prelude=prelude,
            buffer_errors=True,
            fresh=not may_retry,
            explain=lambda error: explain(error, resident),
        )
        if isinstance(outcome, BufferedError):
            status, complete = outcome.status, True
            error = wrap_backend_error(outcome.status, outcome.body, resident.recipe.title)
            if prelude is not None and prelude.begun:
                prelude.fail(error)
                return _told(request, prelude)
            return json_response(error, status=outcome.status)
        status, complete = outcome.status, outcome.complete
        if not complete:
            log.warning("%s: the answer was cut off", resident.served_name)
        return outcome.response
    except UpstreamError as error:
        status = 502
        goes_on = _retries(request, error, may_retry=may_retry)
        raise
    finally:
        if not complete and tap.saw_end:
            status, complete = 200, True
        if not goes_on:  # it is one request, however often it is asked
            publish(parts_of(request).bus, wanted, resident, status, started, complete, tap)


def _retries(request: web.Request, error: UpstreamError, *, may_retry: bool) -> bool:
    """Whether the engine was lost before its first byte, and the request is asked again."""
    lost = isinstance(error, ConnectionLost | UpstreamRefused)
    return lost and may_retry and request.transport is not None


def publish(
    bus: Bus,
    wanted: Inference,
    resident: Resident,
    status: int,
    started: float,
    complete: bool,  # noqa: FBT001 - one of seven facts of a finished request
    tap: UsageTap,
) -> None:
    """Tell everybody that a request is over, and what it cost."""
    bus.publish(finished(wanted, resident.served_name, status, started, complete, tap))


async def explain(error: UpstreamError, resident: Resident) -> None:
    """If the engine has ended, say how, and name the incident. Takes a moment at most."""
    await settled(resident, within=NOTICED_WITHIN)
    if resident.ending:
        await settled(resident)
    if resident.failure and resident.failure not in error.message:
        error.message = f"{error.message} {resident.failure}"
        error.facts["how"] = resident.failed_by
    if resident.incident:
        error.facts["incident"] = resident.incident
        error.remedy = f"`lemonade incidents {resident.incident}` says why."


async def settled(resident: Resident, within: float = 2.0) -> None:
    """Give the supervisor a moment to see that the engine is gone, so the next lease loads."""
    try:
        async with asyncio.timeout(within):
            await resident.gone.wait()
    except TimeoutError:
        return
