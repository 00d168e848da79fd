"""`doctor`: what is wrong on this machine, with or without a server.

Checks run in this process, so that they work when nothing else does. The exit code is 1 if there
is an error among the findings.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lemonade import __version__
from lemonade.cli.command import StandaloneCommand
from lemonade.cli.render import is_terminal, note, out, write_json
from lemonade.cli.session import Session, pass_session
from lemonade.core.errors import BadConfigFile

if TYPE_CHECKING:
    from lemonade.doctor import Finding, Report

_WORDS: Final = {"ok": "ok", "note": "note", "warning": "warning", "error": "ERROR"}
_COLOURS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}
_WIDTH: Final = 9
_MOST_EVIDENCE: Final = 6


@click.command(cls=StandaloneCommand)
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
@click.option(
    "--bundle",
    "archive",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write what helpers need into a .tar.gz, without secrets.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@pass_session
def doctor(session: Session, as_json: bool, archive: Path | None, force: bool) -> int:  # noqa: FBT001 - click calls it
    """Find what is wrong on this machine.

    Looks at devices, drivers, libraries, disks, ports, settings, engines and the network, and says
    what helps. It works without a server, and changes nothing. The exit code is 1 if there is an
    error; warnings and notes are none.
    """
    if archive is not None and not force and os.path.lexists(archive):
        # Said at once, and not after all the checks.
        raise BadConfigFile(
            f"{archive} is there already, and is not replaced.",
            remedy="Name another file, or add --force.",
        )
    from lemonade.doctor import examine, look_around, write_archive
    from lemonade.storage import directories

    # What a server would log while it reads its files is a finding here.
    logging.getLogger("lemonade").addHandler(logging.NullHandler())
    here = look_around(
        directories(os.environ), os.environ, __version__, host=session.host, port=_port(session)
    )
    report = examine(here)
    if as_json:
        write_json(report.as_json())
    else:
        _write(report)
    if archive is not None:
        names = write_archive(archive, here, report, replace=force)
        note(
            f"Wrote {archive} ({archive.stat().st_size} bytes, {len(names)} files). Secrets have "
            "been taken out; look through it before you send it."
        )
    return 1 if report.failed else 0


def _port(session: Session) -> int | None:
    """As `serve` decides it; `None` takes the setting."""
    if session.port is None and os.environ.get("LEMONADE_PORT"):
        return session.address().port
    return session.port


def _write(report: Report) -> None:
    from lemonade.doctor import CHECKS, Level

    for name, (title, _) in CHECKS.items():
        found = [finding for finding in report.findings if finding.check == name]
        if found:
            out(_styled(title, bold=True))
            for finding in found:
                _write_finding(finding)
            out()
    counts = {level: report.count(level) for level in (Level.ERROR, Level.WARNING, Level.NOTE)}
    told = ", ".join(
        f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count
    )
    grave = report.count(Level.ERROR) or report.count(Level.WARNING)
    out(f"Found: {told}." if grave else f"Nothing is wrong{f' ({told})' if told else ''}.")


def _write_finding(finding: Finding) -> None:
    from lemonade.doctor import Level

    level = str(finding.level)
    word = _styled(_WORDS[level].ljust(_WIDTH), colour=_COLOURS[level])
    out(f"  {word}{finding.reason}")
    if finding.level is Level.OK:
        return
    indent = " " * (_WIDTH + 2)
    for seen in finding.evidence[:_MOST_EVIDENCE]:
        out(_styled(f"{indent}seen: {seen}", dim=True))
    if len(finding.evidence) > _MOST_EVIDENCE:
        out(_styled(f"{indent}seen: and {len(finding.evidence) - _MOST_EVIDENCE} more", dim=True))
    if finding.fix:
        out(f"{indent}fix:  {finding.fix}")


def _styled(text: str, *, bold: bool = False, dim: bool = False, colour: str = "") -> str:
    if os.environ.get("NO_COLOR") or not is_terminal():
        return text
    return click.style(text, fg=colour or None, bold=bold or None, dim=dim or None)
