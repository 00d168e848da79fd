"""One round: the moment is reached, the fault happens, and then everything must be right again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final
from urllib.parse import urlencode

import requests

from lemonade.core.errors import LemonadeError
from lemonade.core.records import dataclass
from lemonade.selftest.asking import Asked, ask, load, pause, unload
from lemonade.selftest.draw import Draw, Ending, EngineKind, Fault, Moment
from lemonade.selftest.server import PATIENCE, eventually
from lemonade.selftest.stage import Stage
from lemonade.selftest.subject import ARGS, STREAM_TOKENS, TOKENS, Subject
from lemonade.selftest.thief import Thief
from lemonade.selftest.traces import alive, living, tell
from lemonade.supervisor import LedgerEntry

_NOISE: Final = ("--flood-log", "3000", "--big-lines", "3000000", "--binary-log")
_SHOWN_LINES: Final = 40
_EMBEDDED_STREAM: Final = 400
_STREAMS: Final = 3
_LEAST_MEMORY: Final = 1 << 20
_STRUCK_DEAD: Final = (Fault.KILL, Fault.SEGFAULT)
_DEADLY: Final[Mapping[Fault | Ending, int]] = {
    Fault.KILL: signal.SIGKILL,
    Fault.SEGFAULT: signal.SIGSEGV,
    Fault.ROUTER_KILL: signal.SIGKILL,
    Fault.ROUTER_TERM: signal.SIGTERM,
    Fault.WORKER_KILL: signal.SIGKILL,
    Fault.WORKER_FREEZE: signal.SIGSTOP,
    Ending.ROUTER_KILL: signal.SIGKILL,
    Ending.ROUTER_TERM: signal.SIGTERM,
}


@dataclass(frozen=True, slots=True)
class RoundReport:
    """How a round went.

    Attributes:
        violations: what was not as it must be, as sentences.
        log: the server's last lines, if anything was wrong.
        gone_within: seconds from the server's end until nothing was left; `None` if it lives on.
    """

    draw: Draw
    seconds: float
    violations: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    gone_within: float | None = None


def conduct(stage: Stage, subject: Subject, draw: Draw) -> RoundReport:
    """Do it. A server that has failed is replaced before the next round."""
    began = time.monotonic()
    one = _Round(stage, subject, draw)
    try:
        one.run()
    except LemonadeError as error:
        one.wrong.append(f"the round could not go on: {error}")
    log: tuple[str, ...] = ()
    if one.wrong:
        log = stage.server.last_lines(_SHOWN_LINES)
        stage.down()
    took = time.monotonic() - began
    return RoundReport(draw, took, tuple(one.wrong), log, one.gone_within)


class _Round:
    def __init__(self, stage: Stage, subject: Subject, draw: Draw) -> None:
        self.stage = stage
        self.subject = subject
        self.draw = draw
        self.wrong: list[str] = []
        self.gone_within: float | None = None
        self._asked: list[Asked] = []
        self._victim: LedgerEntry | None = None
        self._worker = 0

    def run(self) -> None:
        stage, draw = self.stage, self.draw
        stage.up()
        with ExitStack() as undo:
            undo.callback(self._let_files_grow)
            self._reach_moment()
            incident = stage.newest_incident()
            self._strike(undo)
            self._hear_out()
            self._see_worker_gone()
            if draw.ends_router:
                self._see_it_gone()
            self._let_files_grow()
            stage.up()
            self._ask_again()
        self.wrong += stage.settled()
        struck = draw.fault in _STRUCK_DEAD and draw.moment in (Moment.IDLE, Moment.STREAM)
        if struck and not eventually(lambda: stage.newest_incident() > incident):
            self.wrong.append("the engine was killed, and no incident says so")

    # ---- the moment

    def _reach_moment(self) -> None:
        stage, draw = self.stage, self.draw
        loading = draw.moment is Moment.LOAD
        if loading:
            self._free_memory()
            if draw.fault is Fault.DISK_FULL and draw.delay < 0.15:
                stage.server.let_no_file_grow(forbidden=True)
        asked = load(stage.server, self.subject.model, self._options())
        if loading:
            self._asked.append(asked)
            if draw.delay > 0.1:  # and somebody waits for it
                self._ask()
            eventually(lambda: bool(self._look()) or asked.begun.is_set())
        else:
            self._need(asked)
            self._look()
        match draw.moment:
            case Moment.STREAM:
                most = None if self.subject.kind is EngineKind.FAKE else _EMBEDDED_STREAM
                for _ in range(_STREAMS):
                    stream = ask(stage.server, self.subject.model, stream=True, most_tokens=most)
                    self._asked.append(stream)
                    stream.begun.wait(PATIENCE)
            case Moment.UNLOAD:
                self._asked.append(unload(stage.server))
            case _:
                pass
        if not (loading and draw.fault is Fault.PORT_THEFT):
            pause(draw.delay)

    def _free_memory(self) -> None:
        """Unload what there is, and be told what that gave back."""
        was = self.stage.victim()
        gone = unload(self.stage.server)
        self._need(gone)
        freed = gone.reply.get("freed_bytes", 0)
        if was is not None and gone.whole and freed < _LEAST_MEMORY:
            self.wrong.append(f"the unload of a sound engine says that it freed {freed} bytes")

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = dict(self.subject.options)
        draw = self.draw
        if draw.engine is not EngineKind.FAKE:
            return options
        words = list(draw.switches)
        match draw.moment:
            case Moment.LOAD:
                steals = draw.fault is Fault.PORT_THEFT
                words += ["--bind-after" if steals else "--ready-after", "0.4"]
                words += _NOISE if draw.fault is Fault.LOG_FLOOD else ()
            case Moment.STREAM:
                words += ["--chunks", str(STREAM_TOKENS), "--slow-chunks", "0.02"]
            case Moment.UNLOAD if draw.delay > 0.1 and "--ignore-term" not in words:
                words.append("--ignore-term")  # so that there is a while in which it unloads
            case _:
                pass
        return {**options, ARGS: " ".join(words)}

    def _look(self) -> LedgerEntry | None:
        self._victim = self._victim or self.stage.victim()
        return self._victim

    def _need(self, asked: Asked) -> None:
        """Wait for what nothing has disturbed, and must therefore succeed."""
        if not asked.wait():
            self.wrong.append(f"{asked.what} is not over after {PATIENCE:g} s")
        elif asked.error is not None:
            self.wrong.append(f"{asked.what} failed before anything happened: {asked.error}")
        else:
            self._check_reply(asked)

    # ---- the fault

    def _strike(self, undo: ExitStack) -> None:
        server, draw = self.stage.server, self.draw
        match draw.fault:
            case Fault.KILL | Fault.SEGFAULT:
                self._signal(_DEADLY[draw.fault])
            case Fault.FREEZE:
                self._signal(signal.SIGSTOP)
                pause(draw.frozen)
                self._signal(signal.SIGCONT)
            case Fault.HANG:
                self._signal(signal.SIGSTOP)
                self._ask_at(Moment.IDLE)
            case Fault.PORT_THEFT:
                self._steal(undo)
            case Fault.DISK_FULL:
                server.let_no_file_grow(forbidden=True)
                if draw.delay > 0.15:  # then what is asked has to be loaded as well
                    self._signal(signal.SIGKILL)
                self._ask_at(Moment.IDLE, Moment.STREAM)
            case Fault.LOG_FLOOD:
                self._make_noise()
            case Fault.ROUTER_KILL | Fault.ROUTER_TERM:
                server.signal(_DEADLY[draw.fault])
            case Fault.WORKER_KILL | Fault.WORKER_FREEZE:
                self._strike_worker()
            case Fault.IGNORES_TERM | Fault.DOUBLE_FORK | Fault.OTHER_SESSION:
                self._end_engine()

    def _end_engine(self) -> None:
        match self.draw.ending:
            case Ending.KILL:
                self._signal(signal.SIGKILL)
            case Ending.UNLOAD:
                if self.draw.moment is not Moment.UNLOAD:
                    self._asked.append(unload(self.stage.server))
            case Ending.ROUTER_KILL | Ending.ROUTER_TERM:
                self.stage.server.signal(_DEADLY[self.draw.ending])

    def _strike_worker(self) -> None:
        """One of them, by the seed; somebody may be dealt to it while it is frozen."""
        workers = sorted(one.pid for one in self.stage.workers())
        if not workers:  # its successor is only being started
            return
        self._worker = workers[self.draw.seed % len(workers)]
        tell(self._worker, _DEADLY[self.draw.fault], self.stage.place.mark)
        self._ask_at(Moment.IDLE)

    def _signal(self, number: int) -> None:
        if self._victim is not None:
            tell(self._victim.leader, number, self.stage.place.mark)

    def _ask(self) -> None:
        self._asked.append(ask(self.stage.server, self.subject.model, most_tokens=TOKENS))

    def _ask_at(self, *moments: Moment) -> None:
        """Ask if nobody else does then."""
        if self.draw.moment in moments:
            self._ask()

    def _steal(self, undo: ExitStack) -> None:
        if self._victim is None:
            return
        if self.draw.moment is not Moment.LOAD or self.draw.engine is not EngineKind.FAKE:
            self._signal(signal.SIGKILL)
        thief = undo.enter_context(Thief(self._victim.port))
        undo.callback(self._look_at_loot, thief)

    def _look_at_loot(self, thief: Thief) -> None:
        if thief.asked:
            self.wrong.append(f"a stranger at the engine's port was asked: {thief.asked[0]}")

    def _make_noise(self) -> None:
        if self._victim is None or self.draw.moment is Moment.LOAD:
            return
        query = urlencode([("switch", word) for word in _NOISE])
        with suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self._victim.port}/fake/noise?{query}"
            session.post(url, timeout=PATIENCE)

    def _let_files_grow(self) -> None:
        self.stage.server.let_no_file_grow(forbidden=False)

    # ---- and then

    def _hear_out(self) -> None:
        for asked in self._asked:
            if not asked.wait():
                self.wrong.append(f"{asked.what} is not over after {PATIENCE:g} s")
                continue
            breaks = self.draw.ends_router or self.draw.strikes_worker
            if problem := asked.wrong(may_break=breaks, fits=self.subject.fits):
                self.wrong.append(problem)
            self._check_reply(asked)

    def _check_reply(self, asked: Asked) -> None:
        if held := asked.reply.get("still_held"):
            self.wrong.append(f"after the unload something is held still: {held}")

    def _see_worker_gone(self) -> None:
        """The server ends one that hangs; that there are enough again is seen with the rest."""
        if self._worker and not eventually(lambda: not alive(self._worker)):
            self.wrong.append(f"worker {self._worker} is alive {PATIENCE:g} s after its fault")

    def _see_it_gone(self) -> None:
        stage, server = self.stage, self.stage.server
        began = time.monotonic()
        if not server.wait():
            self.wrong.append(f"the server is alive {PATIENCE:g} s after it was to end")
            return
        if not stage.nothing_is_left():
            left = ", ".join(map(str, living(stage.place.mark)))
            self.wrong.append(f"after the server's end there are still {left}")
        self.gone_within = time.monotonic() - began
        if server.status not in (0, -signal.SIGKILL):
            self.wrong.append(f"the server ended with status {server.status}")
        for entry in stage.entries():
            self.wrong.append(f"the ledger still has {entry.name}, of which nothing is left")

    def _ask_again(self) -> None:
        asked = ask(self.stage.server, self.subject.model, most_tokens=TOKENS)
        if not asked.wait():
            self.wrong.append(f"the next request has no answer after {PATIENCE:g} s")
        elif asked.error is not None:
            self.wrong.append(f"the next request failed: {asked.error}")
        elif asked.text != self.subject.answer:
            self.wrong.append(f"the next request was answered wrongly: {asked.text[:200]!r}")


Listen = Callable[[RoundReport], None]
"""Told of each round when it is over."""
