"""A server on a child's port that is not the child: it is never taken for it, and it is named."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.core.errors import ExitedWhileStarting
from lemonade.core.process import FOREIGN_SERVER
from lemonade.supervisor import Phase
from lemonade.supervisor.ports import listener_on
from tests.processes.conftest import Bench, asks_health, until

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture
def thief() -> Iterator[int]:
    """The port of somebody who answers everything with 200."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(HEALTHY)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def mentions_us(text: object) -> bool:
    return "another program (" in str(text) and f"pid {os.getpid()})" in str(text)


async def test_who_cannot_have_its_port_says_who_has_it(bench: Bench, thief: int) -> None:
    async with bench.supervisor() as supervisor:
        spec = bench.spec(thief)
        child = await supervisor.start(spec, lambda: asks_health(thief))
        with pytest.raises(ExitedWhileStarting) as caught:
            await child.ready()
    assert caught.value.facts["how"] == FOREIGN_SERVER
    assert mentions_us(caught.value.facts["cause"]) or "Another program" in caught.value.message
    assert f"port {thief}" in caught.value.message
    assert "another port" in caught.value.remedy


async def test_who_waits_beside_a_stranger_is_ended(bench: Bench, thief: int) -> None:
    async with bench.supervisor() as supervisor:
        spec = bench.spec(
            thief, argv=(*bench.spec(0).argv[:3], "--port", "0"), executable_root="/"
        )  # it listens elsewhere
        child = await supervisor.start(spec, lambda: asks_health(thief))
        with pytest.raises(ExitedWhileStarting) as caught:
            await child.ready()
        assert child.report is not None
        assert child.report.how == FOREIGN_SERVER
        assert not child.report.expected
    assert mentions_us(caught.value.message)


async def test_a_port_that_is_taken_later_is_noticed(bench: Bench, thief: int) -> None:
    where = [0]

    async def probe() -> bool:
        return await asks_health(where[0])

    async with bench.supervisor(watch_interval=0.01) as supervisor:
        with supervisor.lease_port() as lease:
            where[0] = lease.port
            child = await supervisor.start(bench.spec(lease.port), probe)
            await child.ready()
            # As if it had let go of its port, and somebody else had come by it.
            object.__setattr__(child.spec.endpoint, "port", thief)
            where[0] = thief
            await until(lambda: child.phase is not Phase.READY)
            report = await child.ended()
    assert report.how == FOREIGN_SERVER
    assert mentions_us(report.sentence())


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert mentions_us(listener_on(port))
        assert Path(sys.executable).name[:6] in listener_on(port)
    assert listener_on(port) == ""
