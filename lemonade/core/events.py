"""Things that have happened, as frozen records.

Events are for observing: nothing in the control path may depend on a listener.
"""

from __future__ import annotations

import msgspec

from lemonade.core.ids import BackendId, ChildId, IncidentId
from lemonade.core.inference import Operation, Usage
from lemonade.core.process import ExitReport, StartStep
from lemonade.core.records import dataclass


class Event:
    """Something happened."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ChildSpawned(Event):
    """A process exists; it is not ready. `backend` is empty if it is no engine."""

    child: ChildId
    name: str
    pid: int
    port: int
    backend: str = ""


@dataclass(frozen=True, slots=True)
class ChildProgressed(Event):
    """A start has come further."""

    child: ChildId
    name: str
    step: StartStep


@dataclass(frozen=True, slots=True)
class ChildBecameReady(Event):
    """The probe passed. `after` is seconds since the spawn."""

    child: ChildId
    name: str
    after: float


@dataclass(frozen=True, slots=True)
class ChildBecameUnhealthy(Event):
    """The child lives, but its probe failed too often."""

    child: ChildId
    name: str


@dataclass(frozen=True, slots=True)
class ChildRecovered(Event):
    """A child that was unhealthy passes its probe again."""

    child: ChildId
    name: str


@dataclass(frozen=True, slots=True)
class ChildStopping(Event):
    """A child is being ended, or what it left is: asked for, too slow, or dead already."""

    child: ChildId
    name: str


@dataclass(frozen=True, slots=True)
class ChildEnded(Event):
    """Nothing of the child is left, or the report says what is."""

    child: ChildId
    name: str
    report: ExitReport


@dataclass(frozen=True, slots=True)
class ChildAdopted(Event):
    """A child that an earlier server has left running serves again."""

    child: ChildId
    name: str
    pid: int
    backend: str


@dataclass(frozen=True, slots=True)
class ChildNotAdopted(Event):
    """A child that was kept for us is not taken over. `reason` is the end of a sentence."""

    child: ChildId
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrphanReaped(Event):
    """A process left by an earlier server was ended at our start."""

    child: ChildId
    name: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BundleInstalled(Event):
    """A version of a backend can be used."""

    backend: BackendId
    version: str


@dataclass(frozen=True, slots=True)
class BundleRemoved(Event):
    """A version of a backend is gone."""

    backend: BackendId
    version: str


@dataclass(frozen=True, slots=True)
class ModelDownloaded(Event):
    """All files of a model are complete."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelDeleted(Event):
    """A model's files are gone."""

    model: str


@dataclass(frozen=True, slots=True)
class LoadBegan(Event):
    """A model is wanted, and not here yet."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelLoaded(Event):
    """A model may be used. `took` is seconds."""

    model: str
    backend: BackendId
    took: float


@dataclass(frozen=True, slots=True)
class ModelRetiring(Event):
    """A model takes no more requests; its engine ends with the last. `why` is a sentence."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class ModelUnloaded(Event):
    """A model is no longer resident. `why` is a sentence."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class LoadFailed(Event):
    """A load ended in an error."""

    model: str
    error: str


@dataclass(frozen=True, slots=True)
class IncidentRecorded(Event):
    """An engine has failed, and a record of it is kept. `cause` may be empty."""

    incident: IncidentId
    model: str
    kind: str
    cause: str


@dataclass(frozen=True, slots=True)
class CircuitOpened(Event):
    """A model keeps failing, and is not started for so many seconds."""

    model: str
    failures: int
    retry_after: float
    incident: IncidentId


@dataclass(frozen=True, slots=True)
class CircuitReset(Event):
    """Somebody has insisted on a model: its failures are forgotten."""

    model: str


@dataclass(frozen=True, slots=True)
class RequestAskedAgain(Event):
    """An engine died before the first byte of its answer, and the next one is asked."""

    model: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class MachineResumed(Event):
    """The machine has slept for so many seconds, and is awake again."""

    slept: float


@dataclass(frozen=True, slots=True)
class SleepInhibited(Event):
    """The machine is kept awake from now on, or not any more."""

    held: bool


@dataclass(frozen=True, slots=True)
class QuarantineBegan(Event):
    """A device's memory did not come back; it is not used. `reason` is a sentence."""

    device: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class QuarantineEnded(Event):
    """A device may be used again. `why` is the end of a sentence."""

    device: str
    why: str


class RequestFinished(msgspec.Struct, Event, frozen=True):
    """An inference request is over.

    Attributes:
        status: HTTP status the client got.
        duration: seconds.
        complete: whether the whole answer was delivered.
    """

    model: str
    operation: Operation
    status: int
    stream: bool
    duration: float
    complete: bool
    usage: Usage
