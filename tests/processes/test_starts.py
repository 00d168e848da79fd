"""How long a start may take: as long as it shows work."""

from __future__ import annotations

import signal

import pytest

from lemonade.core.errors import ExitedWhileStarting, NeverReady
from lemonade.core.events import ChildProgressed
from lemonade.core.process import (
    Diagnosis,
    KnownProblem,
    Milestone,
    ProbeSpec,
    StartStep,
    StopPolicy,
)
from lemonade.supervisor import Phase
from tests.processes.conftest import PATIENCE, Bench

LONG = "2.5"
"""Seconds of a start, well beyond the patience of these tests."""


def probe(**changes: object) -> ProbeSpec:
    facts: dict[str, object] = {"interval": 0.02, "ready_within": PATIENCE, "stall_timeout": 1.0}
    return ProbeSpec("/health", **{**facts, **changes})  # type: ignore[arg-type]


async def test_one_that_does_nothing_hangs(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--never-ready", probe=probe(stall_timeout=0.3))
        with pytest.raises(NeverReady, match=r"did nothing for 0\.3 s") as caught:
            await child.ready()
        assert child.phase is Phase.FAILED
    assert caught.value.facts["stall_timeout"] == 0.3
    assert "stall_timeout" in caught.value.remedy
    assert "listening" in caught.value.message, "its last line"


@pytest.mark.slow
@pytest.mark.parametrize(
    "work",
    [("--prints", "still here\\n", "--prints-every", "0.05"), ("--computes",), ("--grows",)],
    ids=lambda work: work[0],
)
async def test_one_that_works_takes_its_time(bench: Bench, work: tuple[str, ...]) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--ready-after", LONG, *work, probe=probe())
        await child.ready()
        assert child.phase is Phase.READY


async def test_however_hard_it_works_there_is_an_end(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--never-ready", "--computes", probe=probe(ready_within=0.4)
        )
        with pytest.raises(NeverReady, match=r"not ready after 0\.4 s") as caught:
            await child.ready()
    assert "ready_timeout" in caught.value.remedy


async def test_patience_can_be_unlimited(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--ready-after", "0.3", probe=probe(stall_timeout=0.0)
        )
        await child.ready()


async def test_its_output_tells_where_it_is(bench: Bench) -> None:
    milestones = (
        Milestone("weights", r"shards: +(?P<percent>\d+)%"),
        Milestone("weights", r"loading"),
        Milestone("compile", r"graph (?P<done>\d+)/(?P<total>\d+)"),
    )
    said = (
        "loading\\nshards:  0%\\rshards: 50%\\rshards: 100%\\nnothing\\ngraph 1/3\\ngraph 3/0\\n"
    )
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor,
            "--ready-after",
            "0.3",
            "--prints",
            said,
            probe=probe(milestones=milestones),
        )
        await child.ready()
        assert child.step == StartStep("compile")
    steps = [str(event.step) for event in bench.events if isinstance(event, ChildProgressed)]
    assert steps == ["weights", "weights 0 %", "weights 50 %", "weights 100 %", "compile 33 %",
                     "compile"]  # fmt: skip


async def test_a_failure_names_the_phase(bench: Bench) -> None:
    milestones = (Milestone("weights", r"loading (?P<percent>\d+)"),)
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--never-ready", "--prints", "loading 70\\n",
            probe=probe(stall_timeout=0.3, milestones=milestones),
        )  # fmt: skip
        with pytest.raises(NeverReady, match="during 'weights 70 %'") as caught:
            await child.ready()
    assert caught.value.facts["phase"] == "weights"


async def test_a_known_problem_is_called_by_its_name(bench: Bench) -> None:
    known = KnownProblem("load the model '(?P<name>.*)'", "There is no {name}.", "Squeeze {name}.")
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--exit-at-start", "3", "-m", "juice", known_problems=(known,)
        )
        with pytest.raises(ExitedWhileStarting, match=r"status 3 .*There is no juice\.") as caught:
            await child.ready()
        assert child.report is not None
        assert child.report.diagnosis == Diagnosis("There is no juice.", "Squeeze juice.")
    assert caught.value.remedy == "Squeeze juice."
    assert caught.value.facts["cause"] == "There is no juice."
    assert caught.value.facts["exit_status"] == 3


async def test_our_own_signal_is_no_problem_of_its(bench: Bench) -> None:
    known = KnownProblem("", "Something else has killed it.", "Free memory.", "SIGKILL")
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--never-ready", "--ignore-term",
            probe=probe(stall_timeout=0.3), stop=StopPolicy(grace=0.1), known_problems=(known,),
        )  # fmt: skip
        with pytest.raises(NeverReady) as caught:
            await child.ready()
        assert child.report is not None
        assert child.report.signal == signal.SIGKILL
        assert child.report.diagnosis is None
    assert "stall_timeout" in caught.value.remedy


async def test_who_is_stopped_has_no_problem(bench: Bench) -> None:
    known = KnownProblem("listening", "It listens.", "")
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, known_problems=(known,))
        report = await child.stop()
    assert report.diagnosis is None
