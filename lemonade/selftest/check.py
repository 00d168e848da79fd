"""The short check: does everything between a server's start and its end work here?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lemonade.core.errors import NoAnswer, WouldNotDie
from lemonade.core.records import dataclass
from lemonade.selftest.asking import ask
from lemonade.selftest.draw import EngineKind
from lemonade.selftest.stage import Stage, staged
from lemonade.selftest.subject import TOKENS, Subject, embedded_subject, fake_subject
from lemonade.selftest.traces import living


@dataclass(frozen=True, slots=True)
class Step:
    """Something that worked.

    Attributes:
        what: it was, as a sentence.
        seconds: it took.
    """

    what: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The step for programs."""
        return {"what": self.what, "seconds": round(self.seconds, 2)}


def run_check(
    engines: Sequence[EngineKind], listen: Callable[[Step], None] = lambda _: None
) -> tuple[Step, ...]:
    """Start a server, load, ask, unload, end; what was done. Blocks; leaves nothing.

    Args:
        engines: each is tried.
        listen: told of each step.

    Raises:
        LemonadeError: a step did not work.
        OSError: there is no place for it.
    """
    steps: list[Step] = []

    @contextmanager
    def step(what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        steps.append(Step(what, time.monotonic() - began))
        listen(steps[-1])

    with staged() as stage:
        with step("A server of its own started."):
            stage.up()
        for kind in engines:
            if kind is EngineKind.FAKE:
                subject = fake_subject()
            else:
                with step("The embedded engine was installed, and answered."):
                    subject = embedded_subject(stage.server)
            _try(stage, subject, step)
        with step("The server ended, and nothing was left behind."):
            left = _end(stage)
            if left:
                raise WouldNotDie(f"After the server's end there was still {left}.")
    return tuple(steps)


def _try(stage: Stage, subject: Subject, step: Callable[[str], Any]) -> None:
    with stage.server.client() as client:
        with step(f"The {subject.kind} engine loaded {subject.model}."):
            client.load(subject.model, options=subject.options)
        with step("It answered a question as it should."):
            asked = ask(stage.server, subject.model, most_tokens=TOKENS)
            asked.wait()
            if asked.error is not None:
                raise asked.error
            if asked.text != subject.answer:
                raise NoAnswer(f"The answer was wrong: {asked.text[:200]!r}.")
        with step("It was unloaded."):
            client.unload()
    if problems := stage.settled():
        raise NoAnswer(f"The server is not as it should be: {'; '.join(problems)}.")


def _end(stage: Stage) -> str:
    server = stage.server
    server.end()
    stage.nothing_is_left()
    return ", ".join(map(str, living(stage.place.mark)))
