"""Who still holds memory that should be free, in words."""

from __future__ import annotations

from lemonade.cli.render import harmless, note
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size


def write_still_held(answer: JsonObject) -> None:
    """What an unload could not have back; nothing if it got everything."""
    for one in answer.get("still_held") or ():
        pid, size = one.get("pid"), one.get("bytes")
        device = harmless(str(one.get("device") or ""))
        program = harmless(str(one.get("program") or ""))
        if pid is None:
            note(f"{render_size(int(size or 0))} of memory are still taken by files it has left.")
            continue
        state = "" if one.get("alive") else "dead"
        known = ", ".join(word for word in (program, state) if word)
        who = f"Process {pid} ({known})" if known else f"Process {pid}"
        what = f"still holds {render_size(int(size))} of {device}" if size else "does not end"
        note(f"{who} {what}.")


def write_quarantined(answer: JsonObject) -> None:
    """Devices that are not used for now, with what holds their memory; nothing if there are none.

    `answer` is that of health, or of an unload.
    """
    for one in answer.get("devices_quarantined") or ():
        name = harmless(str(one.get("device")))
        why, remedy = (harmless(str(one.get(key) or "")) for key in ("reason", "remedy"))
        note(f"{name} is not used for now: {why} {remedy}")
