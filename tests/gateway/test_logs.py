"""Logs over HTTP and WebSocket: the last lines and those to come, for whoever may see them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from tests.serving import PATIENCE, Serving, fake_catalog, fake_model, serving

KEY = "planted-key-4711"
PROMPT = "planted prompt about lemons"


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "one")
    fake_model(catalog, "loud", args="--flood-log 30000 --big-lines 300000 --binary-log")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def say(server: Serving, *lines: str) -> None:
    base = server.loaded()["one"]["backend_url"].removesuffix("/v1")
    asked = requests.post(f"{base}/fake/say", params={"line": lines}, timeout=PATIENCE)
    assert asked.status_code == 200


@asynccontextmanager
async def follow(server: Serving, query: str) -> AsyncIterator[aiohttp.StreamReader]:
    """The body of a log that is followed."""
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession() as session,
        session.get(f"{server.api}/logs?follow=true&{query}") as response,
    ):
        assert response.status == 200, await response.text()
        yield response.content


@asynccontextmanager
async def socket(
    server: Serving, path: str = "/api/v1/logs/stream", **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}{path}", **options) as connected,
    ):
        yield connected


def test_lines_have_time_level_pid_and_stream(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    say(server, "plain", "W odd", "E bad")
    row = server.loaded()["one"]

    def shown(query: str) -> list[dict[str, Any]]:
        reply = server.get(f"logs?model=one&format=json&{query}")
        assert reply.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
        return [json.loads(line) for line in reply.text.splitlines()]

    plain, odd, bad = shown("lines=3")
    assert [one["level"] for one in (plain, odd, bad)] == ["info", "warning", "error"]
    assert (bad["text"], bad["model"], bad["pid"]) == ("E bad", "one", row["pid"])
    assert (bad["stream"], bad["seq"] > odd["seq"], bad["time"] >= odd["time"]) == (
        "output",
        True,
        True,
    )
    assert [one["text"] for one in shown("level=warning&lines=5")] == ["W odd", "E bad"]
    assert [one["text"] for one in shown("level=error&lines=1")] == ["E bad"]
    assert server.get("logs?model=one&level=error").text == "E bad\n"
    server.post("unload")
    [left] = shown("level=error")
    assert (left["text"], left["time"], left["level"]) == ("E bad", None, "error")


@pytest.mark.parametrize(
    "query", ["lines=-1", "lines=2001", "lines=%C2%B2", "level=loud", "format=xml"]
)
def test_a_wrong_query_is_explained(server: Serving, query: str) -> None:
    reply = server.get(f"logs?model=one&{query}")
    assert reply.status_code == 400
    assert "must be" in reply.json()["error"]


async def test_a_follower_goes_on_over_a_reload(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    async with follow(server, "model=one&lines=0") as body:
        say(server, "first")
        assert await body.readline() == b"first\n"
        server.post("unload")
        assert (await body.readline()).startswith(b"[the engine ")
        assert server.chat("one").status_code == 200
        say(server, "second")
        while (line := await body.readline()) != b"second\n":
            assert line, "the stream ended"


async def test_a_model_can_be_followed_before_it_is_loaded(server: Serving) -> None:
    async with follow(server, "model=one&level=error") as body:
        assert server.chat("one").status_code == 200
        say(server, "nothing", "E something")
        assert await body.readline() == b"E something\n"


async def test_a_server_that_ends_lets_its_followers_go(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    async with follow(server, "model=one") as body, socket(server) as connected:
        await asyncio.to_thread(requests.post, f"{server.url}/internal/shutdown", timeout=PATIENCE)
        assert b"[the engine" in await body.read()
        assert (await connected.receive()).type is aiohttp.WSMsgType.CLOSE
    await asyncio.to_thread(server.process.wait, PATIENCE)


@pytest.mark.slow
async def test_a_reader_that_does_not_read_holds_up_nobody(server: Serving) -> None:
    async with follow(server, "model=loud&lines=0&format=json") as body:
        assert server.chat("loud").status_code == 200
        last = server.get("logs?model=loud&lines=1")
        assert last.text.startswith("listening")
        dropped = 0
        async for raw in body:
            record = json.loads(raw)
            dropped += record.get("dropped", 0)
            if record["text"].startswith("listening"):
                break
        assert dropped > 0


PATHS = ("", "/api/v0", "/api/v1", "/v0", "/v1")


async def test_the_stream_has_what_clients_expect(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    say(server, "W before")
    for prefix in PATHS:
        async with socket(server, f"{prefix}/logs/stream") as connected:
            await connected.send_json({"type": "logs.subscribe", "after_seq": None})
            snapshot = await connected.receive_json()
            assert snapshot["type"] == "logs.snapshot"
            [before] = [one for one in snapshot["entries"] if one["line"].endswith("W before")]
            assert set(before) == {"seq", "timestamp", "severity", "tag", "line"}
            assert (before["severity"], before["tag"]) == ("Warn", "one")
            assert before["line"].startswith(before["timestamp"])
    async with socket(server) as connected:
        await connected.send_json({"type": "logs.subscribe", "after_seq": before["seq"] - 1})
        entries = (await connected.receive_json())["entries"]
        assert entries[0] == before
        say(server, "E live")
        while True:
            message = await connected.receive_json()
            assert message["type"] == "logs.entry"
            if message["entry"]["line"].endswith("E live"):
                break
        assert message["entry"]["severity"] == "Error"
        assert message["entry"]["seq"] > before["seq"]
        await connected.send_json({"type": "logs.subscribe"})
        while (await connected.receive_json())["type"] != "logs.snapshot":
            pass
    # the server's own lines are in it as well
    assert any(one["tag"].startswith("lemonade.") for one in snapshot["entries"])


WRONG = ("no json", "[]", '{"type": "x"}', '{"type": "logs.subscribe", "after_seq": "1"}', "")


async def test_what_is_no_message_gets_an_error(server: Serving) -> None:
    async with socket(server) as connected:
        for text in WRONG:
            await connected.send_str(text)
            reply = await connected.receive_json()
            assert (reply["type"], reply["error"]["type"]) == ("error", "invalid_request_error")
        await connected.send_bytes(b"\0")
        assert (await connected.receive_json())["type"] == "error"
        await connected.send_json({"type": "auth", "token": "any"})
        assert await connected.receive_json() == {"type": "auth.ok"}


def test_plain_http_is_told_that_it_is_a_socket(server: Serving) -> None:
    reply = requests.get(f"{server.url}/logs/stream", timeout=PATIENCE)
    assert reply.status_code == 400
    assert "WebSocket" in reply.json()["error"]
    assert requests.head(f"{server.url}/v1/logs/stream", timeout=PATIENCE).status_code == 400


async def test_a_key_opens_the_stream_in_any_of_three_ways(home: Path) -> None:
    encoded = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    with serving(home, env={"LEMONADE_API_KEY": KEY}) as server:
        path = "/v1/logs/stream"
        protocols = ("lemonade-realtime", f"bearer.{encoded}")
        ways: tuple[tuple[str, dict[str, Any]], ...] = (
            (path, {"headers": {"Authorization": f"Bearer {KEY}"}}),
            (f"{path}?api_key={KEY}", {}),
            (path, {"protocols": protocols}),
        )
        for where, options in ways:
            async with socket(server, where, **options) as connected:
                await connected.send_json({"type": "logs.subscribe"})
                assert (await connected.receive_json())["type"] == "logs.snapshot"
                await connected.send_json({"type": "auth", "token": "wrong"})
                while (await connected.receive_json())["type"] != "error":
                    pass
        assert connected.protocol == "lemonade-realtime"
        refused: tuple[tuple[str, dict[str, Any], int], ...] = (
            (path, {}, 401),
            (f"{path}?api_key=wrong", {}, 401),
            (path, {"protocols": ("bearer.%%%",)}, 401),
            (f"{path}?api_key={KEY}", {"headers": {"Authorization": "Bearer wrong"}}, 401),
            (f"{path}?api_key={KEY}", {"headers": {"Origin": "https://evil.example"}}, 403),
        )
        for where, options, status in refused:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with socket(server, where, **options):
                    pass
            assert caught.value.status == status
        # a key in the query opens sockets only
        assert server.get(f"logs?api_key={KEY}").status_code == 401


def test_neither_prompts_nor_keys_get_into_any_log(home: Path) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "one", args="--print-secrets")
    fake_model(catalog, "frail", args="--answers crash")
    fake_model(catalog, "slow", args="--chunks 500 --slow-chunks 0.05")
    recipe = catalog / "recipes" / "fake.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace('ready = "', 'api_key_env = "LLAMA_API_KEY"\nready = "', 1))
    env = {
        "LEMONADE_CATALOG": str(catalog),
        "LEMONADE_API_KEY": KEY,
        "LEMONADE_LOG_LEVEL": "debug",
    }
    own_keys: set[str] = set()
    with serving(home, "--log-level", "debug", env=env) as server:
        headers = {"Authorization": f"Bearer {KEY}"}
        for more in ({}, {"stream": True}, {"max_tokens": "wrong"}):
            body = {"model": "one", "messages": [{"role": "user", "content": PROMPT}], **more}
            server.post("chat/completions", body, headers=headers)
            environ = Path(f"/proc/{loaded(server)['one']['pid']}/environ").read_bytes()
            own_keys |= {
                word.partition(b"=")[2].decode()
                for word in environ.split(b"\0")
                if word.startswith(b"LLAMA_API_KEY=")
            }
        said = [{"role": "user", "content": PROMPT}]
        frail = server.post(
            "chat/completions", {"model": "frail", "messages": said}, headers=headers
        )
        assert frail.status_code == 502
        broken = {"model": "slow", "messages": said, "stream": True}
        with server.post("chat/completions", broken, headers=headers, stream=True) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.kill(loaded(server)["slow"]["pid"], signal.SIGKILL)
            assert any(b'"error"' in line for line in lines)
        for body in (f'{{"model": "one", "prompt": "{PROMPT}', f"[{PROMPT!r}]"):
            requests.post(
                f"{server.api}/completions", data=body, headers=headers, timeout=PATIENCE
            )
        server.post("embeddings", {"model": "one", "input": PROMPT}, headers=headers)
        kept = requests.get(
            f"{server.api}/logs?model=one&lines=2000", headers=headers, timeout=PATIENCE
        )
        for path in (f"logs?api_key={KEY}", f"no-such-thing?api_key={KEY}"):
            requests.get(f"{server.api}/{path}", headers=headers, timeout=PATIENCE)
    files = [server.log_file, *(home / "cache" / "state").rglob("*")]
    texts = [path.read_text(errors="replace") for path in files if path.is_file()]
    assert any("listening on" in text for text in texts), "the engine's log was looked at"
    assert "DEBUG" in texts[0]
    names = [str(path.relative_to(home)) for path in files]
    assert any("incidents/" in name for name in names), "there are records of failures"
    texts.append(kept.text)
    assert "environ: " in kept.text, "the engine printed its secrets"
    assert own_keys
    for word in (KEY, PROMPT, *own_keys):
        assert not [text for text in texts if word in text]


def loaded(server: Serving) -> dict[str, Any]:
    rows = requests.get(
        f"{server.api}/health", headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE
    ).json()["all_models_loaded"]
    return {row["model_name"]: row for row in rows}
