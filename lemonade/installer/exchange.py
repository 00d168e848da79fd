"""Two folders change places in one step, where the system can do that.

With two renames instead there is a moment in which neither is in its place, and somebody may be
killed in it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_HERE: Final = -100  # AT_FDCWD
_EXCHANGE: Final = 2  # RENAME_EXCHANGE, since Linux 3.15


def exchange(one: Path, other: Path) -> bool:
    """Have two folders of one file system change places; `False` if that cannot be done here."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # some C libraries do without
    if rename is None:
        return False
    status: int = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    return status == 0
