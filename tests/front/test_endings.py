"""Engines that do not keep their word, and clients that leave: what the relay makes of it.

Everything is asked on both ways through the server, the relay of the front and aiohttp's; what a
client sees has to be the same.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.front.telling import CHUNKED, STREAM_HEAD, Told, Wire, body, event, post, told
from tests.serving import PATIENCE, eventually, gone

LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = ["send", OK + 'Content-Length: 8\r\n\r\n{"a": 1}']
STREAM = STREAM_HEAD + CHUNKED
WORD = '{"choices":[{"delta":{"content":"x"}}]}'
WHOLE = ["send", STREAM + event(WORD) + event("[DONE]") + "0\r\n\r\n"]
WAYS = ["fast", "slow"]
SERVERS = [("fast", 0), ("slow", 0), ("fast", 2)]

pytestmark = pytest.mark.slow
_names = itertools.count()


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "workers"])
def one(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Told]:
    """A server whose engine lives through everything that happens here."""
    home = tmp_path_factory.mktemp("endings")
    with told(home, "m", workers=request.param) as server:
        assert server.server.post("load", {"model_name": "m"}).status_code == 200
        yield server


def note() -> str:
    return f"n{next(_names)}"


SILENT: list[object] = [[["close"]], [["reset"]]]
LOST: dict[str, object] = {
    "closed at once": SILENT[0],
    "reset at once": SILENT[1],
    "closed in the head": [["send", "HTTP/1.1 200 OK\r\nContent-"], ["close"]],
    "reset in the head": [["send", "HTTP/1.1 200 OK\r\nContent-"], ["reset"]],
    "closed after an interim answer": [["send", "HTTP/1.1 100 Continue\r\n\r\n"], ["close"]],
    "closed after the head": [["send", OK + "Content-Length: 8\r\n\r\n"], ["close"]],
    "closed after the head of a stream": [["send", STREAM], ["close"]],
    "reset in the first chunk of a stream": [["send", STREAM + event(WORD)[:9]], ["reset"]],
}


def asked_again(one: Told) -> float:
    """What the page for the operator says."""
    page = requests.get(f"{one.server.url}/metrics", timeout=PATIENCE).text
    name = "lemonade_requests_asked_again_total{"
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_got_no_answer_is_asked_again_once(one: Told, way: str, *, stream: bool) -> None:
    """All at the same time, since each waits for the end of an engine that has not ended."""
    before = asked_again(one)
    with ExitStack() as stack:
        for steps, then in itertools.product(LOST.values(), (WHOLE if stream else GOOD, None)):
            wire = stack.enter_context(one.wire())
            wire.say(post(body("m", steps=[GOOD]), way=way))  # now a connection is kept
            assert wire.hear().body == b'{"a": 1}'
            name = note()
            asks = [steps, *([[then]] if then else [])]
            wire.say(post(body("m", stream=stream, note=name, asks=asks), way=way) + LIVE)
            stack.callback(check_asked_again, one, wire, name, steps, then)
    # Who gets an answer over the connection taken instead of a kept one is not asked again.
    silent = sum(steps in SILENT for steps in LOST.values())
    assert asked_again(one) - before == 2 * len(LOST) - silent


def check_asked_again(one: Told, wire: Wire, name: str, steps: object, then: object) -> None:
    heard = wire.hear()
    assert heard.whole
    if then:
        said = f"data: {WORD}\n\ndata: [DONE]\n\n" if then is WHOLE else '{"a": 1}'
        assert heard.body == said.encode()
        assert one.asked(name) == 2
    else:
        assert heard.status == 502
        error = heard.json()["error"]
        assert (error["type"], error["code"]) == ("backend_error", "connection-lost")
        assert error["message"]
        assert heard.fields["x-request-id"]
        # A connection that was kept and is closed without a byte may have been closed before.
        assert one.asked(name) == (3 if steps in SILENT else 2)
    assert wire.hear().body == b'{"status": "ok"}'


GARBAGE = {
    "no http": "SSH-2.0-OpenSSH_9.0\r\n\r\n",
    "a page without a head": "<html>It works!</html>\r\n\r\n",
    "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "length and chunks": OK + "Content-Length: 3\r\n" + CHUNKED + "0\r\n\r\n",
    "a signed length": OK + "Content-Length: +3\r\n\r\nabc",
    "another protocol": "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "an endless head": "HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 20_000,
    "a fold": OK + "X-A: b\r\n c\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_not_passed_on_and_not_asked_for_again(one: Told, text: str, way: str) -> None:
    name = note()
    with one.wire() as wire:
        wire.say(post(body("m", note=name, steps=[["send", text], ["stay"]]), way=way) + LIVE)
        heard = wire.hear()
        assert heard.status == 502
        assert heard.json()["error"]["code"] == "garbled-answer"
        assert one.asked(name) == 1
        assert wire.hear().body == b'{"status": "ok"}'


@pytest.mark.parametrize("way", WAYS)
def test_a_second_answer_nobody_asked_for_reaches_nobody(one: Told, way: str) -> None:
    for good in (GOOD, WHOLE):
        with one.wire() as wire:
            two = [["send", str(good[1]) + OK + "Content-Length: 6\r\n\r\nforged"]]
            wire.say(post(body("m", stream=good is WHOLE, steps=two), way=way))
            assert b"forged" not in wire.hear().raw
            for _ in range(3):
                wire.say(post(body("m", steps=[GOOD]), way=way))
                assert wire.hear().body == b'{"a": 1}'


@pytest.mark.parametrize("way", WAYS)
def test_a_late_second_answer_reaches_nobody(one: Told, way: str) -> None:
    name = note()
    with one.wire() as wire:
        late = [GOOD, ["pause", name], ["send", OK + "Content-Length: 6\r\n\r\nforged"], ["stay"]]
        wire.say(post(body("m", note=name, steps=late), way=way))
        assert wire.hear().body == b'{"a": 1}'
        one.go("m", name)
        one.left(name)  # the server has heard it, and closed the connection
        for _ in range(3):
            wire.say(post(body("m", steps=[GOOD]), way=way))
            assert wire.hear().body == b'{"a": 1}'


BROKEN = {
    "after an event": STREAM + event(WORD),
    "in a chunk": STREAM + event(WORD) + event(WORD)[:9],
    "in the line of a chunk": STREAM + event(WORD) + "2",
    "before its end": STREAM + event(WORD) + event("[DONE]"),
    "in the trailers": STREAM + event(WORD) + "0\r\nX-A: b",
}


@pytest.mark.parametrize("last", ["close", "reset"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_that_breaks_off_ends_with_an_error(
    one: Told, text: str, way: str, last: str
) -> None:
    name = note()
    with one.wire() as wire:
        steps = [["send", text], ["pause", name], [last]]
        wire.say(post(body("m", stream=True, note=name, steps=steps), way=way) + LIVE)
        wire.begun()
        one.go("m", name)
        heard = wire.hear()
        assert heard.status == 200
        assert heard.whole
        *events, error = heard.events()
        sent = [said for said in (WORD, "[DONE]") if event(said) in text]
        assert [said[6:].decode() for said in events] == sent
        assert b'"connection_lost"' in error
        assert b"[DONE]" not in error
        assert one.asked(name) == 1
        assert wire.hear().body == b'{"status": "ok"}'


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_is_garbled_ends_with_an_error(one: Told, way: str) -> None:
    name = note()
    with one.wire() as wire:
        steps = [["send", STREAM + event(WORD)], ["pause", name], ["send", "zz\r\n"], ["stay"]]
        wire.say(post(body("m", stream=True, note=name, steps=steps), way=way) + LIVE)
        wire.begun()
        one.go("m", name)
        heard = wire.hear()
        assert heard.whole
        assert b'"garbled_answer"' in heard.events()[-1]
        assert one.asked(name) == 1
        one.left(name)
        assert wire.hear().body == b'{"status": "ok"}'


HALF = {
    "a length": (OK + "Content-Length: 9\r\n\r\nabc", "close"),
    "a length, reset": (OK + "Content-Length: 9\r\n\r\nabc", "reset"),
    "chunks": (OK + CHUNKED + "3\r\nabc\r\n", "close"),
    "a torn event": (STREAM + "8\r\ndata: x\n\r\n", "close"),
    "no length, reset": (OK + "\r\nabc", "reset"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("text", "last"), HALF.values(), ids=HALF.keys())
def test_half_an_answer_is_not_taken_for_a_whole_one(
    one: Told, text: str, last: str, way: str
) -> None:
    name = note()
    with one.wire() as wire:
        steps = [["send", text], ["pause", name], [last]]
        wire.say(post(body("m", note=name, steps=steps), way=way) + LIVE)
        wire.begun()
        one.go("m", name)
        assert not wire.hear().whole
        assert one.asked(name) == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_ends_with_its_connection_is_whole(one: Told, way: str) -> None:
    with one.wire() as wire:
        for steps in ([["send", OK + "\r\nabc"], ["close"]], [["send", OK + "\r\n"], ["close"]]):
            wire.say(post(body("m", steps=steps), way=way))
            heard = wire.hear()
            assert heard.whole
            assert heard.body == str(steps[0][1]).partition("\r\n\r\n")[2].encode()
            assert heard.fields["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_engine_learns_that_a_client_has_left(
    one: Told, way: str, *, stream: bool, begun: bool
) -> None:
    name = note()
    with one.wire() as wire:
        first = [["send", STREAM + event(WORD) if stream else OK + "Content-Length: 9\r\n\r\na"]]
        steps = [*(first if begun else []), ["stay"]]
        wire.say(post(body("m", stream=stream, note=name, steps=steps), way=way) + LIVE)
        if begun:
            wire.begun()
        eventually(lambda: one.asked(name), "the engine is asked")
        wire.close()
        one.left(name)
        one.idle("m")
        assert one.asked(name) == 1


@pytest.mark.parametrize(("way", "workers"), SERVERS)
def test_an_engine_that_is_silent_for_too_long_is_not_waited_for(
    tmp_path_factory: pytest.TempPathFactory, way: str, workers: int
) -> None:
    home = tmp_path_factory.mktemp("silent")
    with told(home, "m", workers=workers, global_timeout=1) as server, server.wire() as wire:
        assert server.server.post("load", {"model_name": "m"}).status_code == 200
        wire.say(post(body("m", note="mute", steps=[["stay"]]), way=way) + LIVE)
        heard = wire.hear()
        assert heard.status == 504
        assert heard.json()["error"]["code"] == "upstream-timeout"
        assert server.asked("mute") == 1
        server.left("mute")
        assert wire.hear().body == b'{"status": "ok"}'
        steps = [["send", STREAM + event(WORD)], ["stay"]]
        wire.say(post(body("m", stream=True, note="stuck", steps=steps), way=way) + LIVE)
        heard = wire.hear()
        assert heard.whole
        assert b'"upstream_timeout"' in heard.events()[-1]
        server.left("stuck")
        assert wire.hear().body == b'{"status": "ok"}'


@pytest.mark.parametrize(("way", "workers"), SERVERS)
def test_an_engine_that_is_killed_is_loaded_again_and_asked_again(
    tmp_path_factory: pytest.TempPathFactory, way: str, workers: int
) -> None:
    """Killed before its first byte once, then in the middle of a stream, then every time."""
    home = tmp_path_factory.mktemp("killed")
    with (
        told(home, *"mnop", workers=workers, max_loaded_models=4) as server,
        server.wire() as wire,
    ):
        for model in "mnop":
            assert server.server.post("load", {"model_name": model}).status_code == 200
        pid = server.server.loaded()["m"]["pid"]
        asks = [[["die"]], [GOOD]]
        wire.say(post(body("m", note="once", asks=asks), way=way) + post(body("n"), way=way))
        assert wire.hear().body == b'{"a": 1}'
        assert wire.hear().json()["path"] == "/v1/chat/completions"
        assert server.asked("once") == 2
        assert gone(pid)
        assert server.server.loaded()["m"]["pid"] != pid

        steps = [["send", STREAM + event(WORD)], ["pause", "x"]]
        wire.say(post(body("n", stream=True, note="cut", steps=steps), way=way) + LIVE)
        wire.begun()
        pid = server.server.loaded()["n"]["pid"]
        os.kill(pid, signal.SIGKILL)
        heard = wire.hear()
        assert heard.whole
        assert [said[6:].decode() for said in heard.events()[:-1]] == [WORD]
        assert b'"connection_lost"' in heard.events()[-1]
        assert b'"incident"' in heard.events()[-1]
        assert server.asked("cut") == 1
        assert wire.hear().body == b'{"status": "ok"}'

        for model, stream in (("o", False), ("p", True)):
            name = f"always {stream}"
            always = body(model, stream=stream, note=name, steps=[["die"]])
            wire.say(post(always, way=way) + LIVE)
            heard = wire.hear()
            assert heard.status == 502
            error = heard.json()["error"]
            assert error["code"] == "connection-lost"
            assert error["incident"] in error["remedy"]
            assert server.asked(name) == 2
            assert wire.hear().body == b'{"status": "ok"}'


@pytest.mark.parametrize(("way", "workers"), SERVERS)
def test_a_client_may_leave_while_its_request_is_asked_again(
    tmp_path_factory: pytest.TempPathFactory, way: str, workers: int
) -> None:
    home = tmp_path_factory.mktemp("left")
    with told(home, "m", workers=workers) as server:
        assert server.server.post("load", {"model_name": "m"}).status_code == 200
        with server.wire() as wire:
            asks = [[["die"]], [["stay"]]]
            wire.say(post(body("m", note="gone", asks=asks), way=way))
            eventually(lambda: server.asked("gone") == 2, "it is asked again")
            wire.close()
            server.left("gone")
        server.idle("m")
        assert "Relaying failed" not in server.server.log()
