"""Rewrites the generated blocks of docs/ from the code: `python -m tools.docs`.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`. With `--check` nothing is
written and the exit status says whether everything is up to date; `make test` asks that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from lemonade.catalog import reference as catalog
from lemonade.cli import reference as cli
from lemonade.config import reference as config
from lemonade.gateway import reference as gateway

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCKS: dict[str, Callable[[], str]] = {
    "backends": catalog.render_reference,
    "routes": gateway.render_reference,
    "settings": config.render_reference,
    "commands": cli.render_reference,
}
_BLOCK = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """A page with its blocks as the code would have them now."""
    return _BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]]()}{m[3]}", text)


def main() -> int:
    stale = []
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text()
        new = refreshed(old)
        if new != old:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(new)
    print("\n".join(stale) or "All pages are up to date.")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
