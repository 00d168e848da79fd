"""The routes: OpenAI's endpoints over the engine, health, and what Prometheus asks for.

Requests and answers are never logged; a line says which route was asked, and what came of it.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from engine import Engine, Event, Finish, Job
from listening import Reply, Request, as_json
from replies import ChatShape, Shape, TextShape
from responses import ResponseShape, read_response
from wishes import Json, Refused, Wish, read_chat, read_completion, read_json

METRICS = "text/plain; version=0.0.4; charset=utf-8"
STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Endpoint:
    """How one kind of request is read and answered."""

    read: Callable[[Json], Wish]
    shape: Callable[[Wish, str], Shape]


ENDPOINTS = {
    "/v1/chat/completions": Endpoint(read_chat, ChatShape),
    "/v1/completions": Endpoint(read_completion, TextShape),
    "/v1/responses": Endpoint(read_response, ResponseShape),
}
READ = ("/health", "/v1/health", "/v1/models", "/metrics")
OPEN = ("/health", "/v1/health")


class Service:
    """Answers requests, one call of `handle` each."""

    def __init__(self, engine: Engine, name: str, key: str, *, named: bool, verbose: bool) -> None:
        """Nothing runs yet.

        Args:
            engine: started by somebody else.
            name: of the model.
            key: clients must have; empty for none.
            named: somebody gave the name; otherwise answers carry the one they were asked by.
            verbose: a line is logged for every request.
        """
        self._engine = engine
        self._name = name
        self._named = named
        self._key = key
        self._verbose = verbose
        self._began = int(time.time())
        self._served: Counter[tuple[str, int]] = Counter()

    async def handle(self, request: Request) -> Reply:
        """The reply; whatever is wrong with a request becomes an error in OpenAI's shape."""
        try:
            reply = await self._routed(request)
        except Refused as refusal:
            reply = as_json(refusal.body(), refusal.status)
        known = request.path in ENDPOINTS or request.path in READ
        path = request.path if known else "other"
        self._served[path, reply.status] += 1
        if self._verbose and path not in OPEN:
            print(f"{request.method} {path} {reply.status}", file=sys.stderr, flush=True)
        return reply

    async def _routed(self, request: Request) -> Reply:
        endpoint = ENDPOINTS.get(request.path)
        if endpoint is None and request.path not in READ:
            raise Refused("There is nothing here.", status=404, code="not_found")
        if request.method != ("GET" if endpoint is None else "POST"):
            raise Refused(f"Not with {request.method}.", status=405, code="method_not_allowed")
        if request.path not in OPEN:
            self._check_key(request)
        if request.path == "/metrics":
            return Reply(body=self._metrics().encode(), kind=METRICS)
        self._check_loaded()
        if endpoint is None:
            return as_json({"status": "ok"} if request.path in OPEN else self._models())
        wish = endpoint.read(read_json(request.body))
        name = self._name if self._named else wish.model or self._name
        shape = endpoint.shape(wish, name)
        answer = self._answer(wish, shape)
        # The first word says whether the request was accepted: until then it may be refused.
        first = await anext(answer)
        if wish.stream:
            return Reply(kind=STREAM, stream=_from(first, answer, shape.last_word))
        async with aclosing(answer):
            async for _ in answer:
                pass
        return as_json(shape.whole())

    async def _answer(self, wish: Wish, shape: Shape) -> AsyncGenerator[bytes, None]:
        """The events of an answer. Closing it ends the answer.

        Raises:
            Refused: before the first event, or at any time for an answer in one piece.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job(wish, tell)
        self._engine.submit(job)
        begun = False
        try:
            while True:
                match event := await events.get():
                    case None:
                        begun = True
                        yield b"".join(shape.begin())
                    case Refused() if begun and wish.stream:
                        yield b"".join(shape.failed(event))
                        return
                    case Refused():
                        raise event
                    case Finish():
                        yield b"".join(shape.finish(event))
                        return
                    case _:
                        yield b"".join(shape.part(event))
        finally:
            job.cancel()

    def _check_key(self, request: Request) -> None:
        if not self._key:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(given.encode("latin-1"), self._key.encode()):
            raise Refused(
                "The key is missing or wrong.",
                status=401,
                kind="authentication_error",
                code="invalid_api_key",
            )

    def _check_loaded(self) -> None:
        if not self._engine.loaded:
            raise Refused("Loading model", status=503, kind="unavailable_error", code="loading")

    def _models(self) -> object:
        model = {
            "id": self._name,
            "object": "model",
            "created": self._began,
            "owned_by": "local",
            "max_model_len": self._engine.context,
        }
        return {"object": "list", "data": [model]}

    def _metrics(self) -> str:
        working, waiting = self._engine.load
        rows = [
            ("counter", "oga:prompt_tokens_total", "Tokens of accepted prompts.",
             self._engine.prompt_tokens),
            ("counter", "oga:tokens_predicted_total", "Tokens made.", self._engine.tokens),
            ("gauge", "oga:requests_processing", "Answers in the making.", working),
            ("gauge", "oga:requests_deferred", "Requests that wait.", waiting),
        ]  # fmt: skip
        lines = []
        for kind, name, about, value in rows:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {value}"]
        lines += ["# HELP oga:requests_total Requests.", "# TYPE oga:requests_total counter"]
        for (path, status), count in sorted(self._served.items()):
            lines.append(f'oga:requests_total{{path="{path}",status="{status}"}} {count}')
        return "\n".join(lines) + "\n"


async def _from(
    first: bytes, rest: AsyncGenerator[bytes, None], last_word: bytes
) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        if first:
            yield first
        async for piece in rest:
            if piece:
                yield piece
    if last_word:
        yield last_word
