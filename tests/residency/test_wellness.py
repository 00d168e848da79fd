"""Who hangs and who is merely busy, told by looks at an engine; and what becomes of the former."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lemonade.core.bus import Bus
from lemonade.core.process import ProbeSpec, ProcessSpec, StopPolicy
from lemonade.residency import LoadPlan, LoadRequest, LocalPlacement, Pool
from lemonade.residency.circuit import Circuits
from lemonade.residency.failures import Failures
from lemonade.residency.loading import Ingredients
from lemonade.residency.placement import Instance, PortLease
from lemonade.residency.wellness import HangPolicy, Look, Patience, Wellness
from lemonade.supervisor import Supervisor
from lemonade.upstream import fetch
from tests.residency.stage import FakeLoader, Records, Registry, Stage, until_true
from tests.serving import FAKE_ENGINE, survivors

IDLE, BUSY = 30.0, 300.0
USUAL = Patience(idle=IDLE, busy=BUSY)


def first_verdict(*, requests: int = 0, seconds: int = 2000, **how: object) -> int | None:
    """When an engine that fails its probes is ended, in seconds; looks are 5 s apart."""
    wellness = Wellness()
    patience = Patience(idle=IDLE, busy=float(str(how.get("patience", BUSY))))
    for now in range(0, seconds, 5):
        speaks_every = int(str(how.get("speaks_every", 0)))
        silence = float(now % speaks_every if speaks_every else now)
        spent = now * float(str(how.get("share", 0.0)))
        made = now * float(str(how["makes"])) if "makes" in how else None
        look = Look(float(now), bool(how.get("healthy")), requests, silence, spent, made)
        if wellness.hangs(look, patience):
            return now
    return None


def test_an_idle_engine_that_goes_on_failing_hangs() -> None:
    assert first_verdict() == 30


def test_an_engine_that_answers_its_probes_does_not() -> None:
    assert first_verdict(healthy=True) is None
    assert first_verdict(healthy=True, requests=3) is None


def test_an_engine_with_requests_gets_more_time() -> None:
    assert first_verdict(requests=1) == 300
    assert first_verdict(requests=1, patience=20.0) == 20
    assert first_verdict(requests=1, patience=0.0) is None


@pytest.mark.parametrize(
    "sign", [{"speaks_every": 60}, {"share": 1.0}, {"share": 0.06}, {"makes": 0.1}]
)
def test_a_busy_engine_is_never_ended(sign: dict[str, float]) -> None:
    assert first_verdict(requests=1, **sign) is None


def test_what_an_engine_spends_on_probes_is_no_work() -> None:
    assert first_verdict(requests=1, share=0.01) == 300


def test_counters_that_stay_are_no_work() -> None:
    assert first_verdict(requests=1, makes=0.0) == 300


def test_a_recovery_begins_anew() -> None:
    wellness = Wellness()
    for now, healthy in [(0, False), (25, False), (30, True), (35, False), (60, False)]:
        assert wellness.hangs(Look(float(now), healthy, 0), USUAL) == ""
    assert "stopped answering" in wellness.hangs(Look(65.0, healthy=False, requests=0), USUAL)


def test_the_end_of_a_request_begins_anew() -> None:
    wellness = Wellness()
    for now, requests in [(0, 1), (100, 1), (105, 0), (130, 0)]:
        look = Look(float(now), healthy=False, requests=requests, silence=float(now))
        assert wellness.hangs(look, USUAL) == ""


class RealLoader(FakeLoader):
    """Starts the fake engine as a process, through the supervisor."""

    def __init__(self, stage: Stage, placement: LocalPlacement, home: Path) -> None:
        super().__init__(stage)
        self._placement = placement
        self._home = home

    async def start(  # type: ignore[override]
        self, plan: LoadPlan, ingredients: Ingredients
    ) -> tuple[Instance, PortLease]:
        port = self._placement.lease_endpoint()
        program = str(FAKE_ENGINE)
        where = ("--port", str(port.endpoint.port), "--chunks", "200", "--slow-chunks", "0.05")
        spec = ProcessSpec(
            name=plan.served_name,
            argv=(sys.executable, program, *where, "--alias", str(self._home)),
            env={},
            executable_root=Path(sys.executable).parent,
            endpoint=port.endpoint,
            probe=ProbeSpec("/health", timeout=0.1, patience=1),
            stop=StopPolicy(grace=1.0),
        )
        return await self._placement.start(spec, api_key=""), port


async def test_an_engine_that_hangs_is_ended_and_a_pinned_model_is_loaded_again(
    tmp_path: Path,
) -> None:
    bus, stage, records = Bus(), Stage(), Records()
    hang = HangPolicy(look_every=0.01, idle_patience=0.2)
    async with (
        Supervisor(ledger_dir=tmp_path / "children", bus=bus, watch_interval=0.02) as supervisor,
        Pool(
            registry=Registry(),  # type: ignore[arg-type]
            loader=RealLoader(stage, LocalPlacement(supervisor), tmp_path),  # type: ignore[arg-type]
            bus=bus,
            max_per_type=lambda: 1,
            failures=Failures(records, Circuits(), bus),
            hang=lambda: hang,
        ) as pool,
    ):
        resident = await pool.load("one", LoadRequest(pinned=True))
        assert resident.instance is not None
        lease = await pool.lease("one")
        await fetch(resident.instance.spec.endpoint, "/fake/hang", method="POST")
        await until_true(lambda: not lease.instance.healthy)
        assert records.kept == []
        lease.end()
        await resident.gone.wait()
        (incident,) = records.kept
        assert (incident.kind, incident.model) == ("hung", "one")
        assert "stopped answering" in str(incident.record["message"])
        await until_true(lambda: pool.find("one") is not None)
        assert pool.find("one") is not resident
    assert survivors(tmp_path) == []
