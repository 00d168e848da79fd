"""Floor 5: what servers that died left on this machine, told and ended without a server."""

from lemonade.orphans.ending import Account, end_orphans, would_end

__all__ = ["Account", "end_orphans", "would_end"]
