"""Comments of a stream that has not begun: left out where the client is told by somebody else."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from lemonade.upstream import Forwarder
from lemonade.upstream.framing import parse_head
from tests.upstream.answers import CHUNKED, EVENT, STREAM_HEAD, chunk

HEAD = parse_head(STREAM_HEAD + CHUNKED, "POST")
PING = chunk(b":\n\n")


class Transport:
    """Takes what is written."""

    writing_paused = False

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False


def said(*blocks: bytes, told: bool) -> bytes:
    """What a client has of a stream; `told` is whether it is told meanwhile."""
    transport = Transport()
    forwarder = Forwarder(
        cast("asyncio.Transport", transport),
        transport,
        modern=True,
        stays=True,
        begun=(lambda: False) if told else None,
    )
    sink = forwarder.take_head(HEAD)
    for block in blocks:
        sink(block, len(block))
    assert forwarder.sent == len(transport.written)
    return transport.written


@pytest.mark.parametrize(
    "block", [PING, PING * 3, chunk(b": waiting\n\n"), chunk(b": a\n: b\r\n\n")]
)
def test_comments_before_the_first_event_are_left_out(block: bytes) -> None:
    assert said(block, block, told=True) == b""
    rest = said(block, chunk(EVENT), block, told=True)
    assert rest.partition(b"\r\n\r\n")[2] == chunk(EVENT) + block, "what comes later passes"


@pytest.mark.parametrize(
    "block", [chunk(EVENT), PING + chunk(EVENT), b"3\r\n:\n", chunk(b"data: ")]
)
def test_what_says_anything_passes(block: bytes) -> None:
    assert said(block, told=True).endswith(block)


def test_who_is_not_told_otherwise_gets_the_comments() -> None:
    assert said(PING, told=False).endswith(PING)
