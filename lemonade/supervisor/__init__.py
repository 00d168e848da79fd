"""Floor 4: processes of ours, from spawn to sweep. Knows no HTTP, no models and no registries."""

from lemonade.supervisor.child import Child
from lemonade.supervisor.delegation import Delegation, find_delegation
from lemonade.supervisor.health import Probe
from lemonade.supervisor.helper import Helper, HelperFacts
from lemonade.supervisor.inheritance import Heir
from lemonade.supervisor.inhibitor import Inhibitor
from lemonade.supervisor.inspection import LedgerEntry, inspect_ledger
from lemonade.supervisor.journal import Follower, Journal, JournalHandler
from lemonade.supervisor.last_resort import LastResort
from lemonade.supervisor.marked import Marked, marked_children
from lemonade.supervisor.ports import PortLease
from lemonade.supervisor.processes import Identity, ask_for_parent_death_signal, identity_of
from lemonade.supervisor.reaper import Account, Spared, foretell, reap_ledger
from lemonade.supervisor.states import Phase
from lemonade.supervisor.succession import (
    Estate,
    begin_again,
    end_children,
    hold_signals,
    inherit,
    release_signals,
)
from lemonade.supervisor.supervisor import Supervisor

__all__ = [
    "Account", "Child", "Delegation", "Estate", "Follower", "Heir", "Helper", "HelperFacts",
    "Identity", "Inhibitor", "Journal", "JournalHandler", "LastResort", "LedgerEntry", "Marked",
    "Phase", "PortLease", "Probe", "Spared", "Supervisor", "ask_for_parent_death_signal",
    "begin_again", "end_children", "find_delegation", "foretell", "hold_signals",
    "identity_of", "inherit", "inspect_ledger", "marked_children", "reap_ledger",
    "release_signals",
]  # fmt: skip
