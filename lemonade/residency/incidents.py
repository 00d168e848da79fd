"""Incidents: one record for each failure of an engine, kept after the engine is gone.

A failed start, a crash, a start that hung, an engine that stopped answering, a process that would
not die: each becomes one JSON file, readable by its owner only, and the oldest give way. A record
holds what was started, how it ended and its last lines, redacted as logs are. Nothing of what was
asked or answered is in it, and no key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from lemonade.core.errors import LemonadeError, UnknownIncident
from lemonade.core.ids import IncidentId
from lemonade.core.inference import JsonObject
from lemonade.core.process import REDACTED, ExitReport, ProcessSpec
from lemonade.core.records import dataclass
from lemonade.jobs import TaskOwner, outliving
from lemonade.residency.resident import Resident
from lemonade.storage import read_json, write_json

log = logging.getLogger(__name__)

MOST_INCIDENTS: Final = 100
"""How many are kept."""

LINES: Final = 200
_LINE_CHARACTERS: Final = 1000
_TEXT_CHARACTERS: Final = 4000
_MOST_WORDS: Final = 500
_MOST_SAMPLES: Final = 200
_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_DETAIL: Final = re.compile(r"[a-zA-Z0-9_:]+_bucket[{ ]")
_ID_TIME: Final = "%y%m%d-%H%M%S-%f"
_LOOKS_LIKE: Final = re.compile(r"\d{6}-\d{6}-\d{3,}")


class Kind(StrEnum):
    """What went wrong."""

    START_FAILED = "start-failed"
    STALLED = "stalled"
    CRASHED = "crashed"
    HUNG = "hung"
    WOULD_NOT_DIE = "would-not-die"


@dataclass(frozen=True, slots=True)
class Incident:
    """One failure.

    Attributes:
        id: sorts by time.
        kind: what went wrong.
        model: the name its engine answered to.
        cause: why, as a sentence; empty if nobody knows.
        record: all of it, as it is kept and shown.
    """

    id: IncidentId
    kind: Kind
    model: str
    cause: str
    record: JsonObject


def describe_failure(
    resident: Resident,
    kind: Kind,
    *,
    phase: str,
    report: ExitReport | None = None,
    message: str = "",
) -> JsonObject:
    """All that is known of a failure, without its id and time; bounded in size.

    Args:
        resident: whose engine failed, while what it was is still known.
        kind: what went wrong.
        phase: what it was doing: `serving`, or where its start was.
        report: how it ended.
        message: what callers are told.
    """
    instance = resident.instance
    spec: ProcessSpec | None = instance.spec if instance is not None else None
    secrets = spec.secrets if spec is not None else ()
    lines = instance.tail(LINES) if instance is not None else ()
    diagnosis = report.diagnosis if report is not None else None
    return {
        "kind": kind,
        "model": resident.served_name,
        "recipe": resident.recipe.id,
        "backend": resident.backend.id if resident.backend is not None else "",
        "bundle_version": spec.labels.get("version", "") if spec is not None else "",
        "devices": list(resident.devices),
        "argv": list(spec.shown_argv()[:_MOST_WORDS]) if spec is not None else [],
        "options": _redacted(resident.shown_options, secrets),
        "how": resident.failed_by,
        "phase": phase,
        "message": _cut(message),
        "process": _process(spec) if spec is not None else {},
        "memory": {
            "resident_bytes": report.resident_bytes,
            "device_bytes": report.device_bytes,
            "still_held_bytes": sum(one.bytes for one in report.still_held),
        }
        if report is not None
        else {},
        "metrics": _metrics(resident),
        "cause": diagnosis.cause if diagnosis is not None else "",
        "fix": diagnosis.fix if diagnosis is not None else "",
        "ended": report.sentence() if report is not None else "",
        "exit_status": report.status if report is not None else None,
        "signal": report.signal if report is not None else None,
        "lived_seconds": round(report.lived, 1) if report is not None else None,
        "requests": resident.leases + resident.lost,
        "survivors": list(report.survivors) if report is not None else [],
        "kernel": list(report.kernel) if report is not None else [],
        "kernel_unread": report.kernel_unread if report is not None else "",
        "last_lines": [line[:_LINE_CHARACTERS] for line in lines],
    }


class Incidents(TaskOwner):
    """The incidents of this machine. Made by the composition root; outlives the pool.

    What is added can be read at once, and is on the disk a moment later. A disk that cannot be
    written costs the record, and nothing else.
    """

    def __init__(self, folder: Path, *, version: str, most: int = MOST_INCIDENTS) -> None:
        super().__init__()
        self._folder = folder
        self._version = version
        self._most = most
        self._last = ""
        self._unwritten: dict[IncidentId, JsonObject] = {}
        self._writing = False

    async def _end_all(self) -> None:
        """What is still to be written is written: the group waits for it."""

    def add(self, facts: JsonObject) -> Incident:
        """Keep a failure; it has an id from now on."""
        now = datetime.now(UTC)
        name = self._next_id(now)
        record = {
            "schema": 1,
            "id": name,
            "time": now.isoformat(timespec="milliseconds"),
            "lemonade": self._version,
            **facts,
        }
        self._unwritten[name] = record
        if not self._writing:
            self._writing = True
            self._tasks.create_task(outliving(self._write_all, "writing incidents"))
        kind, cause = Kind(str(facts["kind"])), str(facts["cause"])
        return Incident(name, kind, str(facts["model"]), cause, record)

    async def newest(self, *, model: str = "", limit: int = MOST_INCIDENTS) -> list[JsonObject]:
        """The newest first, of one model or of all."""
        waiting = dict(self._unwritten)  # what is written meanwhile may be in neither afterwards
        kept = await asyncio.to_thread(self._read_all)
        found = {**kept, **waiting, **self._unwritten}
        chosen = [found[name] for name in sorted(found, reverse=True)]
        return [one for one in chosen if not model or one.get("model") == model][:limit]

    async def read(self, name: str) -> JsonObject:
        """One incident.

        Raises:
            UnknownIncident: there is none of that id, or none any more.
        """
        record = self._unwritten.get(IncidentId(name))
        if record is None and _LOOKS_LIKE.fullmatch(name):
            record = await asyncio.to_thread(_read, self._folder / f"{name}.json")
        if record is None:
            raise UnknownIncident(
                f"There is no incident '{name}'.",
                remedy=f"The last {self._most} are kept: `lemonade incidents` lists them.",
            )
        return record

    def _next_id(self, now: datetime) -> IncidentId:
        """From the time, and after the last one."""
        name = f"{now:{_ID_TIME}}"[:-3]  # to the millisecond
        if name <= self._last:
            last = datetime.strptime(f"{self._last}000", _ID_TIME)  # noqa: DTZ007 - compared as text
            name = f"{last + timedelta(milliseconds=1):{_ID_TIME}}"[:-3]
        self._last = name
        return IncidentId(name)

    async def _write_all(self) -> None:
        try:
            while self._unwritten:
                name, record = next(iter(self._unwritten.items()))
                try:
                    await asyncio.to_thread(self._write, name, record)
                except (LemonadeError, OSError) as error:
                    log.warning("The incident %s cannot be kept: %s", name, error)
                del self._unwritten[name]
        finally:
            self._writing = False

    def _write(self, name: str, record: JsonObject) -> None:
        write_json(self._folder / f"{name}.json", record)
        for path in sorted(self._files())[: -self._most]:
            with suppress(FileNotFoundError):
                path.unlink()

    def _files(self) -> list[Path]:
        with suppress(OSError):
            return [p for p in self._folder.glob("*.json") if _LOOKS_LIKE.fullmatch(p.stem)]
        return []

    def _read_all(self) -> dict[IncidentId, JsonObject]:
        records = ((path.stem, _read(path)) for path in self._files())
        return {IncidentId(name): record for name, record in records if record is not None}


def _read(path: Path) -> JsonObject | None:
    with suppress(LemonadeError):
        return read_json(path)
    return None


def _process(spec: ProcessSpec) -> JsonObject:
    """What was started, without what must not be shown."""
    limits = spec.limits
    return {
        "cwd": str(spec.cwd) if spec.cwd is not None else None,
        "port": spec.endpoint.port,
        "executable_root": str(spec.executable_root),
        "environment": {
            name: REDACTED if _SECRET.search(name) else _shown(spec.env[name], spec.secrets)
            for name in sorted(spec.env)[:_MOST_WORDS]
        },
        "limits": {
            "open_files": limits.open_files,
            "nice": limits.nice,
            "cpus": list(limits.cpus),
            "memory_bytes": limits.memory_bytes,
        },
        "ready_within": spec.probe.ready_within,
        "stall_timeout": spec.probe.stall_timeout,
        "stop_grace": spec.stop.grace,
    }


def _metrics(resident: Resident) -> JsonObject:
    """What the engine said of itself last."""
    if not resident.metrics_seen:
        return {}
    seen = datetime.fromtimestamp(resident.metrics_seen_at, UTC)
    lines = resident.metrics_seen.decode("utf-8", "replace").splitlines()
    samples = [line[:_LINE_CHARACTERS] for line in lines if line and not line.startswith("#")]
    return {
        "seen": seen.isoformat(timespec="milliseconds"),
        "samples": [one for one in samples if not _DETAIL.match(one)][:_MOST_SAMPLES],
    }


def _shown(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _cut(text)


def _redacted(options: Mapping[str, object], secrets: Sequence[str]) -> JsonObject:
    text = json.dumps(dict(options), default=str)
    for secret in secrets:
        text = text.replace(json.dumps(secret)[1:-1], REDACTED)
    shown: JsonObject = json.loads(text)
    return {key: _cut(value) if isinstance(value, str) else value for key, value in shown.items()}


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}..."
