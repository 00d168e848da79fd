"""`selftest`: does it work here, and does it still when things go wrong?

It needs no server and touches none: it starts one of its own, in a directory of its own, and
leaves nothing. The exit code is 1 if anything was not as it must be.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from lemonade.cli.background import ended_by_signals
from lemonade.cli.command import StandaloneCommand, refuse_usage
from lemonade.cli.render import Column, harmless, note, out, style, write_json, write_table
from lemonade.core.errors import BadConfigFile
from lemonade.core.records import dataclass

if TYPE_CHECKING:
    from lemonade.selftest import ChaosReport, EngineKind, RoundReport, Step

_ROUNDS: Final = 50
_LARGEST_SEED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line said of a run of chaos."""

    rounds: int
    seed: int
    engines: list[EngineKind]
    workers: int = 0


@click.command(cls=StandaloneCommand)
@click.option("--chaos", is_flag=True, help="Let things go wrong, and see what becomes of it.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help=f"With --chaos: how many faults. [default: {_ROUNDS}]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="S",
    help="With --chaos: draws the same faults again. [default: a new one]",
)
@click.option(
    "--engine",
    type=click.Choice(["fake", "embedded", "both"]),
    default="fake",
    show_default=True,
    help="What is loaded; the embedded engine is installed for this, and removed.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    metavar="N",
    help="With --chaos: processes beside the server that relay. [default: 0]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
def selftest(
    chaos: bool,  # noqa: FBT001 - click calls it
    rounds: int | None,
    seed: int | None,
    engine: str,
    workers: int | None,
    as_json: bool,  # noqa: FBT001 - click calls it
) -> int:
    """Try whether everything works on this machine.

    A server of its own is started in a directory of its own: your settings, models and servers are
    not touched, and nothing is left. With --chaos engines, workers and servers are killed, frozen,
    flooded and robbed of ports and disk while they load, serve, stream and unload; after each
    round nothing may be left behind, nothing lost, and the next request answered. Linux only.
    """
    if not chaos and any(one is not None for one in (rounds, seed, workers)):
        raise refuse_usage("--rounds, --seed and --workers mean something with --chaos only.")
    from lemonade.selftest import EngineKind

    engines = list(EngineKind) if engine == "both" else [EngineKind(engine)]
    with ended_by_signals():
        try:
            if not chaos:
                return _check(engines, as_json=as_json)
            first = secrets.randbelow(_LARGEST_SEED) if seed is None else seed
            wish = _Wish(rounds or _ROUNDS, first, engines, workers or 0)
            return _chaos(wish, as_json=as_json)
        except OSError as error:
            raise BadConfigFile(
                f"The self-test has no place to be in: {error.strerror or error}.",
                remedy="It needs some megabytes among the temporary files (TMPDIR).",
            ) from error


def _check(engines: list[EngineKind], *, as_json: bool) -> int:
    from lemonade.selftest import run_check

    def tell(step: Step) -> None:
        (note if as_json else out)(f"{step.what:<60}{step.seconds:>6.1f} s")

    steps = run_check(engines, tell)
    if as_json:
        write_json({"schema": 1, "steps": [step.as_json() for step in steps]})
    else:
        out("Everything works.")
    return 0


def _chaos(wish: _Wish, *, as_json: bool) -> int:
    from lemonade.selftest import run_chaos

    note(f"Seed {wish.seed}, {wish.rounds} rounds.")
    report = run_chaos(wish.rounds, wish.seed, wish.engines, _teller(wish), workers=wish.workers)
    if as_json:
        write_json(report.as_json())
    else:
        _summarise(report)
    return 1 if report.violated else 0


def _teller(wish: _Wish) -> Callable[[RoundReport], None]:
    """Tells of each round when it is over; of one that went wrong, everything."""
    rounds = wish.rounds
    words = f"--engine {'both' if len(wish.engines) > 1 else wish.engines[0]}"
    words += f" --workers {wish.workers}" * bool(wish.workers)

    def tell(one: RoundReport) -> None:
        number = one.draw.seed - wish.seed + 1
        verdict = style("WRONG", err=True, bold=True) if one.violations else "ok"
        note(f"{number:>{len(str(rounds))}}/{rounds}  {one.draw}: {verdict}, {one.seconds:.1f} s")
        if not one.violations:
            return
        for sentence in one.violations:
            note(f"  {harmless(sentence)}")
        habits = f", engine started with {' '.join(one.draw.switches)}" * bool(one.draw.switches)
        note(f"  Seed {one.draw.seed}: {one.draw.fault} at {one.draw.moment}{habits}.")
        again = f"lemonade selftest --chaos --rounds 1 --seed {one.draw.seed} {words}"
        note(f"  Again: {again}")
        note("  The server said last:")
        for line in one.log:
            note(f"    {harmless(line)}")

    return tell


def _summarise(report: ChaosReport) -> None:
    from lemonade.selftest import Fault, Moment

    counts = report.counts()
    columns = [Column("Fault", 15), *(Column(m.capitalize(), 8, 6) for m in Moment)]
    rows = []
    for fault in Fault:
        row = [counts[fault, moment] for moment in Moment]
        wrong = sum(1 for one in report.violated if one.draw.fault is fault)
        if any(row):
            rows.append((fault.value, *map(str, row), str(wrong) if wrong else "-"))
    write_table([*columns, Column("Wrong")], rows, rule=0)
    gone = [one.gone_within for one in report.rounds if one.gone_within is not None]
    if gone:
        out(f"The server was ended {len(gone)} times; all was gone within {max(gone):.1f} s.")
    seconds = sum(one.seconds for one in report.rounds)
    done = f"{len(report.rounds)} rounds from seed {report.seed} in {seconds:.0f} s"
    if report.violated:
        seeds = ", ".join(str(one.draw.seed) for one in report.violated)
        out(f"{done}: {len(report.violated)} went wrong (seeds {seeds}).")
    else:
        out(f"{done}: nothing was left behind, nothing lost, every next request answered.")
