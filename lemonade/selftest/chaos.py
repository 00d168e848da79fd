"""Many rounds, one after the other, and what they came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lemonade.core.records import dataclass
from lemonade.selftest.draw import EngineKind, draw_round
from lemonade.selftest.round import Listen, RoundReport, conduct
from lemonade.selftest.stage import staged
from lemonade.selftest.subject import Subject, embedded_subject, fake_subject


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """All rounds of a run; round `n` has the seed `seed + n`."""

    seed: int
    rounds: tuple[RoundReport, ...]

    @property
    def violated(self) -> tuple[RoundReport, ...]:
        """The rounds in which something was wrong."""
        return tuple(one for one in self.rounds if one.violations)

    def counts(self) -> Counter[tuple[str, str]]:
        """How often each fault came at each moment."""
        return Counter((str(r.draw.fault), str(r.draw.moment)) for r in self.rounds)

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "schema": 1,
            "seed": self.seed,
            "violations": sum(len(one.violations) for one in self.rounds),
            "rounds": [
                {
                    "seed": one.draw.seed,
                    "engine": one.draw.engine,
                    "fault": one.draw.fault,
                    "moment": one.draw.moment,
                    "ending": one.draw.ending,
                    "habits": list(one.draw.switches),
                    "seconds": round(one.seconds, 2),
                    "gone_within": None if one.gone_within is None else round(one.gone_within, 2),
                    "violations": list(one.violations),
                    "log": list(one.log),
                }
                for one in self.rounds
            ],
        }


def run_chaos(
    rounds: int,
    seed: int,
    engines: Sequence[EngineKind],
    listen: Listen = lambda _: None,
    *,
    workers: int = 0,
) -> ChaosReport:
    """Conduct rounds with a server of our own. Blocks; interrupted, it leaves nothing.

    Args:
        rounds: how many.
        seed: of the first; each has one more than the one before.
        engines: who may suffer.
        listen: told of each round.
        workers: processes beside the server that relay.

    Raises:
        LemonadeError: the server or an engine cannot even be started.
        OSError: there is no place for it.
    """
    done: list[RoundReport] = []
    with staged(workers) as stage:
        subjects: dict[EngineKind, Subject] = {EngineKind.FAKE: fake_subject()}
        if EngineKind.EMBEDDED in engines:
            subjects[EngineKind.EMBEDDED] = embedded_subject(stage.up())
        for number in range(rounds):
            draw = draw_round(seed + number, engines, workers=workers > 0)
            done.append(conduct(stage, subjects[draw.engine], draw))
            listen(done[-1])
    return ChaosReport(seed, tuple(done))
