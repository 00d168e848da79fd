"""What an engine's last words say about a start that would have worked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lemonade.catalog.launch_spec import RetrySpec


def fitting_context(retries: Sequence[RetrySpec], lines: Sequence[str]) -> int | None:
    """The context that it said would fit, from the last line that says so; `None` if none does."""
    for line in reversed(lines):
        for retry in retries:
            found = re.search(retry.pattern, line)
            if found is not None and found["ctx_size"].isdigit() and int(found["ctx_size"]) > 0:
                return int(found["ctx_size"])
    return None
