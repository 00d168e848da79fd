"""Real children for these tests, and the question asked after each: is anything of mine alive?"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from lemonade.core.bus import Bus
from lemonade.core.events import Event
from lemonade.core.ids import ChildId
from lemonade.core.process import Endpoint, ProbeSpec, ProcessSpec, StopPolicy
from lemonade.supervisor import Child, Supervisor
from lemonade.supervisor.delegation import Delegation, find_delegation
from lemonade.supervisor.processes import ProcessFacts, read_process, scan

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "programs"
FAKE_ENGINE = ROOT / "lemonade" / "selftest" / "fake_engine.py"
SERVER_TITLE = "VLLM::APIServer"
MARK = "SUPERVISION_TEST"
CHILD = ChildId("tiny-0")
PATIENCE = 15.0


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("lemonade") as detector:
        # Between fork and exec there is nothing to do but wait, and a task that is torn down may
        # not wait in any other way: these are the room's exceptions. The rest is ours.
        for function in detector.functions.values():
            function.can_block_in("lemonade/supervisor/spawn.py", {"spawn", "collect"})
            function.can_block_in("lemonade/supervisor/child.py", {"_abandon"})
            function.can_block_in("tests/processes/conftest.py", {"alive"})
            function.can_block_in(
                "processes/test_reaper.py", {"identity_of", "record_of", "write"}
            )
        yield detector


@pytest.fixture
def mark() -> str:
    """A word that is in the environment of every process of this test."""
    return secrets.token_hex(8)


@pytest.fixture(autouse=True)
def nothing_is_left_alive(mark: str) -> Iterator[None]:
    before = set(scan())
    yield
    left = [facts for facts in scan().values() if not facts.dead and _is_of(facts, mark, before)]
    for facts in left:
        os.kill(facts.pid, signal.SIGKILL)
    assert not left, f"this test has left processes alive: {left}"


def _is_of(facts: ProcessFacts, mark: str, before: set[int]) -> bool:
    if facts.pid == os.getpid() or facts.pid in before:
        return False
    if facts.parent == os.getpid():  # we adopt orphans, so those that hide are ours by now
        return True
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{facts.pid}/environ").read_bytes()
    except OSError:
        return False


async def asks_health(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).split()[1:2] == [b"200"]
    finally:
        writer.close()


async def post(port: int, path: str) -> None:
    """Ask a fake engine for something; it may not live to answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()


@dataclass
class Bench:
    """Everything a test needs to start fake engines."""

    home: Path
    mark: str
    events: list[Event] = field(default_factory=list)
    delegation: Callable[[], Delegation] = find_delegation

    @property
    def ledger(self) -> Path:
        return self.home / "ledger"

    def records(self) -> list[Path]:
        return sorted(self.ledger.glob("*.json"))

    @asynccontextmanager
    async def supervisor(self, **settings: Any) -> AsyncIterator[Supervisor]:
        bus = Bus()
        bus.subscribe(Event, self.events.append)
        settings.setdefault("notice_interval", 0.02)
        settings.setdefault("orphan_grace", 0.05)
        settings.setdefault("delegation", self.delegation)
        async with asyncio.timeout(PATIENCE * 2):
            async with Supervisor(ledger_dir=self.ledger, bus=bus, **settings) as supervisor:
                yield supervisor

    def spec(self, port: int, *switches: str, **changes: object) -> ProcessSpec:
        """A fake engine's; with `--renamed` it hides what it is called, as vLLM's server does."""
        program = [str(FAKE_ENGINE)]
        if "--renamed" in switches:
            switches = tuple(switch for switch in switches if switch != "--renamed")
            program = [str(PROGRAMS / "renamed.py"), SERVER_TITLE, *program]
        facts: dict[str, object] = {
            "name": "Tiny",
            "argv": (sys.executable, "-S", *program, "--port", str(port), *switches),
            "env": {MARK: self.mark},
            "executable_root": Path(sys.executable).resolve().parent,
            "endpoint": Endpoint("127.0.0.1", port),
            "probe": ProbeSpec("/health", interval=0.01, ready_within=PATIENCE),
            "stop": StopPolicy(grace=PATIENCE, kill_within=PATIENCE),
            **changes,
        }
        return ProcessSpec(**facts)  # type: ignore[arg-type]

    async def start(self, supervisor: Supervisor, *switches: str, **changes: object) -> Child:
        """Spawn a fake engine on a port of its own; it is not ready yet."""
        with supervisor.lease_port() as lease:
            spec = self.spec(lease.port, *switches, **changes)
            return await supervisor.start(spec, lambda: asks_health(lease.port))

    async def ready(self, supervisor: Supervisor, *switches: str, **changes: object) -> Child:
        child = await self.start(supervisor, *switches, **changes)
        await child.ready()
        return child


@pytest.fixture
def bench(tmp_path: Path, mark: str) -> Bench:
    return Bench(tmp_path, mark)


@pytest.fixture
def base() -> Path:
    """The cgroup in which this machine lets us make others."""
    found = find_delegation()
    if found.base is None:
        pytest.skip(f"no cgroup can be made here: {found.reason}")
    return found.base


@pytest.fixture(params=["in a cgroup of its own", "in ours"])
def with_and_without_a_leaf(request: pytest.FixtureRequest, bench: Bench) -> None:
    if request.param == "in ours":
        bench.delegation = lambda: Delegation(None, "this test wants none")
    else:
        request.getfixturevalue("base")


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for something that is not announced, under a limit."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = holds()
            if (await answer) if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.01)


async def pid_said(child: Child, word: str) -> int:
    """The pid that a process of the child has printed after `word`."""
    found: list[int] = []

    def said() -> bool:
        found.extend(
            int(line.split()[1]) for line in child.tail(100) if line.startswith(f"{word} ")
        )
        return bool(found)

    await until(said)
    return found[0]


def alive(pid: int) -> bool:
    facts = read_process(pid)
    return facts is not None and not facts.dead
