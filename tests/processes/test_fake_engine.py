"""The fake engine keeps its word: tests that use it rest on these."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.processes.conftest import (
    FAKE_ENGINE,
    SERVER_TITLE,
    Bench,
    alive,
    pid_said,
    until,
)

CHAT = "/v1/chat/completions"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def engine(bench: Bench, *switches: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--alias", "tiny", *switches)
        async with aiohttp.ClientSession(child.spec.endpoint.url) as session:
            yield session


async def active(session: aiohttp.ClientSession) -> dict[str, int]:
    async with session.get("/fake/active") as reply:
        counts: dict[str, int] = await reply.json()
        return counts


def test_an_unknown_flag_ends_it_with_a_message() -> None:
    argv = (sys.executable, str(FAKE_ENGINE), "--gpu-layers", "9")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unrecognized arguments: --gpu-layers 9" in done.stderr


async def test_it_answers_like_an_engine(bench: Bench) -> None:
    async with engine(bench, "--ctx-size", "512") as session:
        async with session.get("/v1/models") as reply:
            [model] = (await reply.json())["data"]
            assert (model["id"], model["meta"]) == ("tiny", {"n_ctx": 512})
        async with session.post(CHAT, json=QUESTION) as reply:
            answer = await reply.json()
            assert answer["choices"][0]["message"]["content"] == "word0 word1 word2 "
            assert answer["usage"]["completion_tokens"] == 3
        async with session.post("/v1/completions", json={"max_tokens": 1}) as reply:
            assert (await reply.json())["choices"][0]["text"] == "word0 "
        async with session.post("/v1/embeddings", json={"input": ["a", "b"]}) as reply:
            vectors = [item["embedding"] for item in (await reply.json())["data"]]
            assert [len(vector) for vector in vectors] == [4, 4]
        async with session.post(CHAT, data=b"{") as reply:
            assert reply.status == 400
        assert (await active(session))["served"] == 3


async def test_it_streams(bench: Bench) -> None:
    async with engine(bench) as session:
        wish = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
        async with session.post(CHAT, json=wish) as reply:
            events = [e.removeprefix("data: ") for e in (await reply.text()).split("\n\n") if e]
        assert events.pop() == "[DONE]"
        parts = [json.loads(event) for event in events]
        assert parts[-1]["usage"]["completion_tokens"] == 3
        text = "".join(p["choices"][0]["delta"].get("content", "") for p in parts[:-1])
        assert text == "word0 word1 word2 "


@pytest.mark.parametrize("stream", [True, False])
async def test_it_notices_that_a_client_has_left(bench: Bench, *, stream: bool) -> None:
    """Long before its next chunk, which would take minutes."""
    async with engine(bench, "--slow-chunks", "600") as session, asyncio.TaskGroup() as group:

        async def ask() -> None:
            url = session._build_url(CHAT)
            async with (
                aiohttp.ClientSession() as client,
                client.post(url, json={**QUESTION, "stream": stream}) as reply,
            ):
                await reply.read()

        async def is_busy(expected: int) -> bool:
            return (await active(session))["active"] == expected

        asking = group.create_task(ask())
        await until(lambda: is_busy(1))
        asking.cancel()
        await until(lambda: is_busy(0))
        assert (await active(session))["aborted"] == 1


async def test_it_breaks_off_a_stream(bench: Bench) -> None:
    async with engine(bench, "--drop-mid-stream", "2") as session:
        seen = bytearray()

        async def read(reply: aiohttp.ClientResponse) -> None:
            async for piece in reply.content.iter_any():
                seen.extend(piece)

        async with session.post(CHAT, json={**QUESTION, "stream": True}) as reply:
            with pytest.raises(aiohttp.ClientPayloadError):
                await read(reply)
        assert seen.count(b"data: ") == 2
        assert b"[DONE]" not in seen


async def test_it_wants_its_key(bench: Bench) -> None:
    async with engine(bench, "--api-key", "k") as session:
        async with session.get("/v1/models") as reply:
            assert reply.status == 401
        async with session.get("/v1/models", headers={"Authorization": "Bearer k"}) as reply:
            assert reply.status == 200


async def test_it_shows_what_it_was_sent(bench: Bench) -> None:
    async with engine(bench) as session:
        async with session.post(CHAT, json=QUESTION, headers={"X-Mine": "1"}) as reply:
            assert reply.status == 200
        async with session.get("/fake/last") as reply:
            last = await reply.json()
        assert json.loads(last["body"]) == QUESTION
        assert ["x-mine", "1"] in last["headers"]


async def test_it_can_call_itself_something_else(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--renamed", "--spawn-engine", "--engine-has-worker")
        core, worker = await pid_said(child, "engine-core"), await pid_said(child, "worker")
        for pid, name in (
            (child.pid, SERVER_TITLE), (core, "VLLM::EngineCore"), (worker, "VLLM::Worker")
        ):  # fmt: skip
            folder = Path(f"/proc/{pid}")
            assert (folder / "comm").read_text().strip() == name[:15]
            assert (folder / "cmdline").read_bytes().strip(b"\0") == SERVER_TITLE.encode()
        await child.stop()
        assert not any(map(alive, (core, worker)))
