"""Whether what was kept can be taken over, as the ledger and `/proc` have it.

The next server asks this before it makes a child its own, and whoever only looks asks the same, so
that nobody calls kept what no server would take. Whether the child is well is not asked here.
"""

from __future__ import annotations

from lemonade.supervisor.kept import Kept
from lemonade.supervisor.ledger import Record
from lemonade.supervisor.ports import listens
from lemonade.supervisor.proof import Found


def unfit(record: Record, kept: Kept, found: Found) -> str:
    """Why a child cannot be taken over, as the end of a sentence; empty if it can. Blocks.

    Args:
        record: of the child; its server is dead, or was this very process.
        kept: what lies beside the record.
        found: what is alive of it.
    """
    if kept.leader != record.leader or kept.child != record.child:
        return "what was kept is not what was recorded"
    own = {facts.pid: facts for facts in found.own}
    leader = own.get(record.leader.pid)
    if leader is None or leader.identity != record.leader:
        stranger = next((s for s in found.strangers if s.pid == record.leader.pid), None)
        return f"{stranger.reason} (pid {stranger.pid})" if stranger else "it has ended"
    if leader.session != record.leader.pid:
        return "it is in another session"
    listening = listens(record.port, own)
    if listening is None:
        return f"nobody listens on its port {record.port}"
    return "" if listening else f"another program listens on its port {record.port}"
