"""One process, two servers: ours ends, and the same process begins again as the next one.

The number stays, and with it our children remain our children; so whoever looks after this process
sees no change. Everything that is open is closed by that, except for what the next server is given
on purpose: the sockets that listen, so that nobody is turned away meanwhile, and the pipes that
children write to. Which they are stands in a file that only this process takes for its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from lemonade.core.errors import LemonadeError
from lemonade.core.ids import ChildId
from lemonade.core.records import dataclass
from lemonade.storage import write_json
from lemonade.supervisor.guardian import Guardian
from lemonade.supervisor.kept import SUFFIX
from lemonade.supervisor.ledger import Owner
from lemonade.supervisor.processes import own_identity

log = logging.getLogger(__name__)

FORMAT: Final = 1
SIGNALS: Final = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
"""Held back while nobody would understand them."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What one server gives to the next.

    Attributes:
        address: where it was told to listen, host and port.
        sockets: descriptors that listen there, in sets as they were made.
        pipes: reading ends of children's output.
    """

    address: tuple[str, int] = ("", 0)
    sockets: tuple[tuple[int, ...], ...] = ()
    pipes: Mapping[ChildId, int] = field(default_factory=dict)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        return (*(number for one in self.sockets for number in one), *self.pipes.values())


def hold_signals() -> None:
    """From now until `release_signals`, which may be in another life, they wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Somebody understands them now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def begin_again(ledger: Path, command: Sequence[str], estate: Estate) -> str:
    """Become that command. Returns only if that cannot be, and then why. Blocks.

    The children that were left alone are ended then: nobody would look after them.
    """
    note = _note(ledger)
    open_ = estate.descriptors
    us = own_identity()
    try:
        write_json(
            note,
            {
                "format": FORMAT,
                "pid": us.pid,
                "start_ticks": us.start_ticks,
                "address": list(estate.address),
                "sockets": [list(one) for one in estate.sockets],
                "pipes": dict(estate.pipes),
            },
        )
        for descriptor in open_:
            os.set_inheritable(descriptor, True)  # noqa: FBT003
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], list(command))  # noqa: S606 - no shell is wanted
    except (LemonadeError, OSError) as error:
        why = str(error)
    with contextlib.suppress(OSError):
        note.unlink(missing_ok=True)
    end_children(ledger)
    return why


def inherit(ledger: Path) -> Estate | None:
    """What this process has from its former life; `None` if it had none. Blocks."""
    note = _note(ledger)
    try:
        value: Any = json.loads(note.read_bytes())
        note.unlink()
        us = own_identity()
        if value["format"] != FORMAT or (value["pid"], value["start_ticks"]) != (
            us.pid,
            us.start_ticks,
        ):
            return None
        host, port = value["address"]
        estate = Estate(
            (str(host), int(port)),
            tuple(tuple(int(number) for number in one) for one in value["sockets"]),
            {ChildId(str(child)): int(number) for child, number in value["pipes"].items()},
        )
        for descriptor in estate.descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("What this server has left to itself cannot be read: %s", error)
        return Estate()
    return estate


def _note(ledger: Path) -> Path:
    return ledger / f"successor.{os.getpid()}"


def end_children(ledger: Path) -> None:
    """Have a guardian end those that were left alone, as soon as we have ended. Blocks."""
    us = Owner.ourselves().identity
    for file in ledger.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads(file.with_suffix(".json").read_bytes())["owner"]
            if (owner["pid"], owner["start_ticks"]) == (us.pid, us.start_ticks):
                file.unlink()
    with contextlib.suppress(OSError):
        Guardian(ledger.absolute())
