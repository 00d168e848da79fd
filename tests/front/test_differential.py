"""The relay of the front, aiohttp's way and the engine itself give the same answers.

Two thousand requests, and some more with workers, are made up from seeds: operations, prefixes,
names, bodies and headers of clients; statuses, headers, framings and cuts of the engine. Each is
sent on both ways through one server and straight to its engine. A query is all that keeps a
request from the relay, so the same server takes both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.front.made_up import PREFIXES, Maker
from tests.front.telling import CHAT, Heard, Told, Wire, body, post, told, wire
from tests.serving import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEEDS = 20
REQUESTS = 100
MODELS = ("m", "vectors", "order")
LAST = b"GET /fake/last HTTP/1.1\r\n\r\n"

TARGETS = {b"/reranking": b"/rerank", b"/reranker": b"/rerank"}
"""What the engine calls them."""

NOT_COMPARED = {"date", "server"}
"""aiohttp adds these to answers of ours."""

NOT_PASSED = {
    "connection", "content-length", "keep-alive", "server", "transfer-encoding", "upgrade", "te",
    "proxy-authenticate", "proxy-connection", "x-request-id", "x-hop", "vary", "cache-control",
    "x-accel-buffering",
}  # fmt: skip
"""Of the engine's headers; `cache-control` and the like are said anew for streams."""


class Line:
    """A connection to one port; a new one whenever the last has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack = ExitStack()
        self._wire: Wire | None = None

    def ask(self, data: bytes) -> Heard:
        if self._wire is None:
            self._wire = self._stack.enter_context(wire(self._port))
        self._wire.say(data)
        heard = self._wire.hear()
        if self.closes(heard):
            self.close()
        return heard

    def closes(self, heard: Heard) -> bool:
        unsized = not {"content-length", "transfer-encoding"} & heard.fields.keys()
        asked = "close" in heard.fields.get("connection", "").lower()
        return asked or (unsized and heard.status != 204) or heard.head.startswith(b"HTTP/1.0")

    def close(self) -> None:
        self._stack.close()
        self._wire = None


@dataclass
class Lines:
    fast: Line
    slow: Line
    engines: dict[str, Line]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Told]:
    home = tmp_path_factory.mktemp("differential")
    workers: int = request.param
    with told(home, *MODELS, workers=workers, max_loaded_models=3) as one:
        for model in MODELS:
            assert one.server.post("load", {"model_name": model}).status_code == 200
        eventually(lambda: ready(one) == workers, "the workers are ready")
        yield one


def ready(one: Told) -> int:
    """How many workers there are."""
    count: int = one.server.get("health").json().get("workers", {"ready": 0})["ready"]
    return count


@pytest.fixture
def lines(server: Told) -> Iterator[Lines]:
    port = int(server.server.url.rpartition(":")[2])
    engines = {model: Line(int(server.engine(model).rpartition(":")[2])) for model in MODELS}
    lines = Lines(Line(port), Line(port), engines)
    yield lines
    for line in (lines.fast, lines.slow, *engines.values()):
        line.close()


def one_of_many(one: Told) -> bool:
    """Whether there are workers."""
    return "--workers" in one.server.process.args  # type: ignore[operator]


def line(heard: Heard) -> bytes:
    """Version, status and reason."""
    return heard.head.split(b"\r\n")[0]


def pairs(heard: Heard) -> list[tuple[str, str]]:
    """All headers that matter, with repetitions."""
    found = []
    for one in heard.head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = one.partition(":")
        if name.lower() not in NOT_COMPARED:
            found.append((name.lower(), value.strip()))
    return sorted(found)


def last(engine: Line) -> dict[str, Any]:
    """What the engine was asked most recently."""
    said: dict[str, Any] = engine.ask(LAST).json()
    return {**said, "headers": sorted(said.get("headers", ()))}


@pytest.mark.parametrize(
    ("server", "seed"),
    [*((0, seed) for seed in range(SEEDS)), *((2, seed) for seed in range(SEEDS, SEEDS + 5))],
    indirect=["server"],
)
def test_three_ways_to_an_engine_are_one(server: Told, lines: Lines, seed: int) -> None:
    maker = Maker(seed)
    for number in range(REQUESTS):
        case = maker.case()
        where = f"seed {seed}, request {number}: {case.steps}"[:2000]
        engine = lines.engines[case.model]
        if one_of_many(server):
            lines.fast.close()  # a new connection comes to any of them
        fast = lines.fast.ask(post(case.body, *case.fields, path=case.path))
        seen = last(engine)
        slow = lines.slow.ask(post(case.body, *case.fields, path=case.path, way="slow"))
        assert fast.whole, where
        assert slow.whole, where
        assert line(fast) == line(slow), where
        assert fast.body == slow.body, where
        assert pairs(fast) == pairs(slow), where
        if not case.asks_engine:
            assert 400 <= fast.status < 500, where
            continue
        assert seen == last(engine), where
        prefix = next(one for one in PREFIXES if case.path.startswith(one))
        target = case.path[len(prefix) :]
        target = b"/v1" + TARGETS.get(target, target)
        direct = engine.ask(post(case.body, *case.fields, path=target))
        compare(fast, direct, where)


HEADS: dict[str, list[bytes]] = {
    "no host": [],
    "an empty host": [b"Host:"],
    "an odd host": [b"Host: a b"],
    "an empty value": [b"Host: x", b"X-A:"],
    "any bytes": [b"Host: x", b"X-A: \xff\xe2 \t x"],
    "a key in any bytes": [b"Host: x", b"Authorization: \xff"],
    "a control character": [b"Host: x", b"X-A: \x01"],
    "an odd name": [b"Host: x", b"X!#$%&'*+-.^_`|~: a"],
    "a long name": [b"Host: x", b"X" * 300 + b": a"],
    "a long value": [b"Host: x", b"X-A: " + b"a" * 7800],
    "too long a value": [b"Host: x", b"X-A: " + b"a" * 8200],
    "many fields": [b"Host: x", *(b"X-%d: a" % number for number in range(95))],
    "too many fields": [b"Host: x", *(b"X-%d: a" % number for number in range(130))],
    "connections": [b"Host: x", b"Connection: a", b"Connection: close"],
    "an upgrade to nothing": [b"Host: x", b"Connection: upgrade"],
    "trailers": [b"Host: x", b"TE: trailers", b"Trailer: a"],
    "an origin of no page": [b"Host: x", b"Origin: null"],
    "an empty origin": [b"Host: x", b"Origin:"],
    "conditions": [b"Host: x", b"If-None-Match: *", b"Range: bytes=0-3"],
    "a form": [b"Host: x", b"Content-Type: multipart/form-data"],
    "no coding": [b"Host: x", b"Content-Encoding: identity"],
    "a coding that is not true": [b"Host: x", b"Content-Encoding: gzip"],
    "too long a name for itself": [b"Host: x", b"X-Request-Id: " + b"r" * 129],
}


@pytest.mark.parametrize("server", [0], indirect=True)
@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS.keys())
def test_heads_that_are_unusual_are_met_alike(server: Told, fields: list[bytes]) -> None:
    asked = body("m")
    size = b"Content-Length: %d" % len(asked)
    heard = []
    for query in (b"", b"?x=1"):
        with server.wire() as raw:
            first = b"POST %b%b HTTP/1.1" % (CHAT, query)
            raw.say(b"\r\n".join((first, *fields, size, b"", asked)))
            heard.append(raw.hear())
    fast, slow = heard
    assert line(fast) == line(slow)
    assert fast.body == slow.body
    mine = {"x-request-id"}  # counted on from one to the next
    assert [one for one in pairs(fast) if one[0] not in mine] == [
        one for one in pairs(slow) if one[0] not in mine
    ]


def compare(relayed: Heard, direct: Heard, where: str) -> None:
    """An answer through the server, and the engine's own."""
    assert relayed.status == direct.status, where
    if not 200 <= direct.status < 300:
        try:
            said = json.loads(direct.body)
        except ValueError:
            said = direct.body.decode("utf-8", "replace")
        assert relayed.json()["error"]["details"]["response"] == said, where
        return
    assert line(relayed) == line(direct), where
    assert relayed.body == direct.body, where
    passed = [
        (name, value)
        for name, value in pairs(direct)
        if name not in NOT_PASSED and not name.startswith("access-control-")
    ]
    got = pairs(relayed)
    for one in passed:
        assert one in got, where
        got.remove(one)
    assert {name for name, _ in got} <= NOT_PASSED | {
        "access-control-allow-methods", "access-control-allow-headers",
        "access-control-allow-origin", "content-length", "transfer-encoding",
    }, where  # fmt: skip
    assert not {"theirs", "engine/1"} & set(relayed.fields.values()), where
