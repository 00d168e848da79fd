"""`lemonade selftest` as users run it: a process of its own that leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.cli.selftest import _summarise, _teller, _Wish
from lemonade.selftest import ChaosReport, EngineKind, RoundReport
from lemonade.selftest.draw import draw_round
from tests.serving import environment, survivors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 17323
"""From here sixteen rounds have every fault and every moment."""

ROUNDS = 16

WORKERS_SEED = 17330
"""From here four rounds with workers kill one while a model is loaded, and one amid streams."""


def variables(home: Path) -> dict[str, str]:
    """The private place lies below `home`, so that whoever is left can be found by that."""
    (home / "tmp").mkdir(parents=True)
    return {**environment(home), "TMPDIR": str(home / "tmp")}


def selftest(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "lemonade", "selftest", *words],
        env=variables(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not survivors(home)
    assert list((home / "tmp").iterdir()) == []
    assert list(home.iterdir()) == [home / "tmp"], "the user's own directories are not even made"
    return done


def test_some_rounds_of_everything(tmp_path: Path) -> None:
    words = ("--chaos", "--rounds", str(ROUNDS), "--seed", str(SEED), "--json")
    done = selftest(tmp_path / "home", *words)
    report = json.loads(done.stdout)
    wrong = [one for one in report["rounds"] if one["violations"]]
    assert not wrong, done.stderr
    assert done.returncode == 0
    assert report["violations"] == 0
    expected = [draw_round(SEED + n, [EngineKind.FAKE]) for n in range(ROUNDS)]
    assert [(one["seed"], one["fault"], one["moment"]) for one in report["rounds"]] == [
        (draw.seed, draw.fault, draw.moment) for draw in expected
    ]
    ended = [one["gone_within"] is not None for one in report["rounds"]]
    assert ended == [draw.ends_router for draw in expected]


def test_workers_that_relay_lose_nothing_either(tmp_path: Path) -> None:
    words = ("--chaos", "--rounds", "4", "--seed", str(WORKERS_SEED), "--workers", "2", "--json")
    done = selftest(tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == 0
    assert [one["fault"] for one in report["rounds"]].count("worker-kill") == 2


def test_the_short_check_says_what_it_did(tmp_path: Path) -> None:
    done = selftest(tmp_path / "home")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("A server of its own started.")
    assert lines[-2].startswith("The server ended, and nothing was left behind.")
    assert lines[-1] == "Everything works."


@pytest.mark.engine
def test_the_embedded_engine_is_tried_too(tmp_path: Path) -> None:
    words = ("--engine", "embedded", "--json")
    done = selftest(tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr
    steps = [step["what"] for step in json.loads(done.stdout)["steps"]]
    assert "The embedded engine was installed, and answered." in steps


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-m", "lemonade", "selftest", "--chaos", "--rounds", "1000"],
        env={**variables(home), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with process:
        assert process.stderr is not None
        seed = process.stderr.readline()
        assert seed.startswith("Seed ")
        assert process.stderr.readline().startswith("   1/1000  fake: ")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in said
    assert not survivors(home)
    assert list((home / "tmp").iterdir()) == []


def test_rounds_and_seed_are_for_chaos(tmp_path: Path) -> None:
    done = selftest(tmp_path / "home", "--seed", "1")
    assert done.returncode == 2
    assert "with --chaos only" in done.stderr


def test_a_violation_is_told_with_all_that_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    draw = draw_round(SEED + 4, [EngineKind.FAKE])
    one = RoundReport(draw, 1.5, ("somebody was left behind",), ("the last line",))
    _teller(_Wish(5, SEED, [EngineKind.FAKE], workers=2))(one)
    said = capsys.readouterr().err
    assert "somebody was left behind" in said
    assert f"Seed {SEED + 4}: {draw.fault} at {draw.moment}" in said
    assert (
        f"lemonade selftest --chaos --rounds 1 --seed {SEED + 4} --engine fake --workers 2" in said
    )
    assert "the last line" in said
    report = ChaosReport(SEED, (one,))
    assert report.violated == (one,)
    _summarise(report)
    assert f"1 went wrong (seeds {SEED + 4})" in capsys.readouterr().out
