"""What an installation would do, for people: from where, how much, where to, and what stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lemonade.cli.render import out
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size

_VOUCHERS: Final = {
    "pinned": "its SHA-256 is pinned by Lemonade",
    "published": "its SHA-256 is published by the release",
    "recorded": "its SHA-256 was recorded when it was first fetched",
    "first use": "nobody vouches for it; its SHA-256 will be recorded",
}
_PINS: Final = {
    "builtin": "pinned by Lemonade",
    "latest": "the latest known",
    "tag": "as you chose",
}
_DIGITS: Final = 16


def show_plan(plan: JsonObject) -> None:
    """Print the server's answer."""
    out(f"Installing {plan.get('recipe')}:{plan.get('backend')} ({plan.get('title')}) would:")
    out()
    for label, lines in (
        ("Version", [_version(plan)]),
        ("From", [_origin(plan)]),
        ("Into", [str(plan.get("target"))]),
        ("Fetch", _files(plan)),
        ("Disk", [_disk(plan)]),
        ("Keep", [", ".join(plan.get("keeps") or ()) or "no other version is installed"]),
        ("Do", [", ".join(plan.get("steps") or ())]),
    ):
        for index, line in enumerate(lines):
            out(f"  {label if index == 0 else '':<9}{line}")
    out()
    out(_outcome(plan))


def _version(plan: JsonObject) -> str:
    made_for = f" for {plan['made_for']}" if plan.get("made_for") else ""
    how = _PINS.get(str(plan.get("pin")), "")
    return f"{plan.get('version')}{made_for}" + (f", {how}" if how else "")


def _origin(plan: JsonObject) -> str:
    if plan.get("repo"):
        return f"{plan['repo']}, release {plan.get('version')}"
    return f"a package index: {', '.join(plan.get('packages') or ())}"


def _files(plan: JsonObject) -> list[str]:
    assets: Sequence[dict[str, Any]] = plan.get("assets") or ()
    total = plan.get("download_bytes")
    files = "1 file" if len(assets) == 1 else f"{len(assets)} files"
    lines = [f"{files}, {render_size(total) if total else 'of unknown size'}"]
    for asset in assets:
        size = asset.get("size_bytes")
        lines.append(f"{asset['name']}" + (f" ({render_size(size)})" if size else ""))
        digest = str(asset.get("sha256") or "")
        shown = f"{digest[:_DIGITS]}...: " if digest else ""
        lines.append(f"  {shown}{_VOUCHERS.get(str(asset.get('verified_by')), '')}")
    if plan.get("unknown"):
        lines.append(f"What is not known: {plan['unknown']}")
    return lines


def _disk(plan: JsonObject) -> str:
    needed, free = plan.get("disk_needed_bytes"), plan.get("disk_free_bytes") or 0
    have = f"{render_size(free)} free"
    if not needed:
        return f"it is not known how much it needs; {have}"
    short = "" if needed <= free else "; that is not enough"
    return f"about {render_size(needed)} while it is installed; {have}{short}"


def _outcome(plan: JsonObject) -> str:
    verdict: JsonObject = plan.get("verdict") or {}
    if not plan.get("supported"):
        said = f"It does not run there: {verdict.get('reason')}"
        return " ".join(filter(None, (said, str(verdict.get("fix") or "")))) + (
            " Nothing was done."
        )
    if plan.get("already_installed"):
        return "It is installed already, so nothing would be done. --force would do it again."
    return "Nothing was done."
