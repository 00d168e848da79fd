"""The pages in docs/ say what the code does, and can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lemonade.gateway.application import all_routes
from tests.serving import ROOT
from tools.docs import DOCS, refreshed

PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_blocks_are_fresh(page: Path) -> None:
    assert refreshed(page.read_text()) == page.read_text(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_in_the_index(page: Path) -> None:
    assert page.name == "README.md" or f"({page.name})" in (DOCS / "README.md").read_text()


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(ROOT / name for name in ("README.md", "backends/README.md", "recipes/README.md"))],
    ids=lambda page: f"{page.parent.name}/{page.name}",
)
def test_links_lead_somewhere(page: Path) -> None:
    inside = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in inside if not (page.parent / link).exists()]
    assert not missing


def test_every_route_says_what_it_does() -> None:
    silent = [route.path for route in all_routes() if not route.handler.__doc__]
    assert not silent
