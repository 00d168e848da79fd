"""A connection that goes to another process: what was written is sent first, what was read goes
along, and the socket lives on."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
import uvloop

from lemonade.relay import Client, Moved, Taker, read_rest
from lemonade.relay.handing import Hander
from tests.front.house import WAIT, TestHouse, post

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]
NEXT = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


class Worker(TestHouse):
    """A house without anybody who helps."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.parted: list[tuple[bytes, int]] = []

    def help(self, client: Client) -> None:
        return None

    def part_with(self, client: Client, data: bytes) -> None:
        self.parted.append((data, client.transport.get_write_buffer_size()))


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_written_is_sent_first(loop: Any) -> None:
    async def part() -> None:
        house = Worker()
        call = await house.call()
        body = b'{"model":"m","text":"%b"}' % (b"x" * 1_000_000)
        call.say(post(body) + NEXT)
        while not house.answers[0].abandoned and call.client.phase.value != "parting":
            await asyncio.sleep(0)
        assert call.client.transport.get_write_buffer_size()
        assert not house.parted
        async with asyncio.timeout(WAIT):
            status, _, got = await call.hear()
            assert (status, got) == (200, body)
            while not house.parted:
                await asyncio.sleep(0)
        assert house.parted == [(NEXT, 0)]
        call.client.transport.abort()
        await call.leave()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(part())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [0, 100, 32 * 1024, 32 * 1024 + 1, 3_000_000])
def test_what_was_read_goes_along(loop: Any, size: int) -> None:
    async def pass_on() -> None:
        ours, theirs = socket.socketpair()
        sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        sending.settimeout(0)
        taken: asyncio.Future[tuple[socket.socket, Moved, socket.socket | None]]
        taken = asyncio.get_running_loop().create_future()
        taker = Taker(receiving, lambda *all_: taken.set_result(all_))
        async with asyncio.timeout(WAIT), asyncio.TaskGroup() as tasks:
            hander = Hander(sending, lambda deed: (tasks.create_task(deed), None)[1])
            hander.hand(os.dup(theirs.fileno()), 7, b"r" * size)
            theirs.close()
            sock, moved, more = await taken
            early = moved.early if more is None else await read_rest(more)
        assert (moved.lost, early) == (7, b"r" * size)
        sock.send(b"hello")
        assert ours.recv(5) == b"hello"
        taker.close()
        for one in (ours, sock, sending):
            one.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(pass_on())
