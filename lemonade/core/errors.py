"""The one tree of errors.

```
LemonadeError                      code, message, remedy, facts
├── CatalogError                   UnknownModel · UnknownRecipe · UnknownBackend · BadDescriptor
│                                  NameTaken · DefinitionDiffers
├── ConfigError                    UnknownSetting · BadSetting · BadConfigFile
├── PlanError                      UnsupportedHere · DoesNotFit · ContradictoryOptions
│                                  ReservedArgument · BadArgument · BadOption
│                                  AdapterUnsupported · BadAdapter
├── InstallError                   DownloadFailed · ChecksumMismatch · UnsafeArchive · NoSpace
│                                  Locked · NotInstalled · InstallForbidden · InstallStopped
│                                  SetupFailed · NoEarlierVersion
├── CheckpointError                NotInRepository · GatedRepository · Offline · Incomplete
│                                  HubUnreachable · DamagedFile · OutOfDisk · NotDeletable
│                                  UnsupportedRegistry
├── ChildError                     SpawnFailed · ExitedWhileStarting · NeverReady · WouldNotDie
├── CapacityError                  EverythingPinned · QueueFull · ShuttingDown · KeepsFailing
│                                  DeviceQuarantined
├── UpstreamError                  ConnectionLost · UpstreamTimeout · UpstreamRefused
│                                  GarbledAnswer · AdapterRefused
├── RequestError                   MalformedRequest · WrongOperation · NotAuthorised
│                                  ForbiddenOrigin · NotLoaded · NoSuchRoute
│                                  UnknownIncident · CannotRestart
└── ServerUnreachable · ServerRefused · NoAnswer   (raised by the client room and the CLI)
```

`code` is stable, kebab-case and part of the API. `remedy` is a sentence a user can act on. `facts`
are JSON-able. The HTTP status of each class stands in one table in the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LemonadeError(Exception):
    """Something is wrong, and we know what."""

    code: ClassVar[str] = "error"

    def __init__(
        self, message: str, *, remedy: str = "", facts: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.facts: dict[str, object] = dict(facts or {})

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        # A message may end in what somebody else said, with or without an end of its own.
        end = "" if self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.message}{end} {self.remedy}"


# ---- what is declared


class CatalogError(LemonadeError):
    """A declared thing is missing or wrong."""

    code = "catalog-error"


class UnknownModel(CatalogError):
    """No model of that name, or none with that adapter. `facts["near"]` lists similar names."""

    code = "unknown-model"


class UnknownRecipe(CatalogError):
    """No recipe of that name."""

    code = "unknown-recipe"


class UnknownBackend(CatalogError):
    """No backend of that name."""

    code = "unknown-backend"


class BadDescriptor(CatalogError):
    """A registry file does not say what it must; the message names file, table and key."""

    code = "bad-descriptor"


class NameTaken(CatalogError):
    """The name belongs to something else."""

    code = "name-taken"


class DefinitionDiffers(CatalogError):
    """A model of that name exists with another definition; the message lists the differences."""

    code = "definition-differs"


# ---- what the operator decided


class ConfigError(LemonadeError):
    """A setting is wrong."""

    code = "config-error"


class UnknownSetting(ConfigError):
    """No setting of that name."""

    code = "unknown-setting"


class BadSetting(ConfigError):
    """A setting cannot have that value."""

    code = "bad-setting"


class BadConfigFile(ConfigError):
    """A configuration file cannot be read or written."""

    code = "bad-config-file"


# ---- decisions


class PlanError(LemonadeError):
    """What was asked cannot be planned."""

    code = "plan-error"


class UnsupportedHere(PlanError):
    """This machine or this version cannot run it; the message is the reason."""

    code = "unsupported-here"


class DoesNotFit(PlanError):
    """There is not enough memory."""

    code = "does-not-fit"


class ContradictoryOptions(PlanError):
    """Two options exclude each other."""

    code = "contradictory-options"


class ReservedArgument(PlanError):
    """An argument that Lemonade manages was given by somebody else."""

    code = "reserved-argument"


class BadArgument(PlanError):
    """An engine argument cannot be read, e.g. an unterminated quote."""

    code = "bad-argument"


class BadOption(PlanError):
    """A load option is unknown to the recipe or has the wrong type."""

    code = "bad-option"


class AdapterUnsupported(PlanError):
    """The model's engine cannot do that with an adapter."""

    code = "adapter-unsupported"


class BadAdapter(PlanError):
    """What an adapter's path names is not there, no adapter, or made for another model."""

    code = "bad-adapter"


# ---- engines on this disk


class InstallError(LemonadeError):
    """A backend could not be installed or removed; what was there before still is."""

    code = "install-error"


class DownloadFailed(InstallError):
    """A file could not be fetched."""

    code = "download-failed"


class ChecksumMismatch(InstallError):
    """A file is not the one that was pinned."""

    code = "checksum-mismatch"


class UnsafeArchive(InstallError):
    """An archive tries to write where it must not."""

    code = "unsafe-archive"


class NoSpace(InstallError):
    """The disk is full or would be."""

    code = "no-space"


class Locked(InstallError):
    """Another process is at work on the same target, or uses it."""

    code = "locked"


class NotInstalled(InstallError):
    """The backend is not installed, or not in that version."""

    code = "not-installed"


class NoEarlierVersion(InstallError):
    """Nothing was used before, or nothing of that is left, so there is no way back."""

    code = "no-earlier-version"


class InstallForbidden(InstallError):
    """The operator switched fetching of executables off."""

    code = "install-forbidden"


class InstallStopped(InstallError):
    """Somebody paused or cancelled an installation that others were waiting for."""

    code = "install-stopped"


class SetupFailed(InstallError):
    """A private environment could not be built, or what is in it does not start."""

    code = "setup-failed"


# ---- models on this disk


class CheckpointError(LemonadeError):
    """The files of a model could not be had."""

    code = "checkpoint-error"


class NotInRepository(CheckpointError):
    """The repository, revision, variant or file does not exist."""

    code = "not-in-repository"


class GatedRepository(CheckpointError):
    """The repository wants a token, or consent given on its page."""

    code = "gated-repository"


class Offline(CheckpointError):
    """The operator switched the network off and the files are not here."""

    code = "offline"


class Incomplete(CheckpointError):
    """Some files of the model are missing or half there."""

    code = "incomplete"


class HubUnreachable(CheckpointError):
    """The hub does not answer."""

    code = "hub-unreachable"


class DamagedFile(CheckpointError):
    """A file is there, but it is not what its name says."""

    code = "damaged-file"


class OutOfDisk(CheckpointError):
    """The disk is full or would be."""

    code = "out-of-disk"


class NotDeletable(CheckpointError):
    """The model's files are not ours to delete."""

    code = "not-deletable"


class UnsupportedRegistry(CheckpointError):
    """This version cannot fetch from that registry."""

    code = "unsupported-registry"


# ---- children


class ChildError(LemonadeError):
    """A child did not do what it was started for.

    `facts` hold `exit_status` or `signal`, and `last_lines`.
    """

    code = "child-error"


class SpawnFailed(ChildError):
    """The executable could not be started at all."""

    code = "spawn-failed"


class ExitedWhileStarting(ChildError):
    """The child ended before it was ready."""

    code = "exited-while-starting"


class NeverReady(ChildError):
    """The child lives, but did not become ready in time."""

    code = "never-ready"


class WouldNotDie(ChildError):
    """Processes of the child are still alive after SIGKILL."""

    code = "would-not-die"


# ---- capacity


class CapacityError(LemonadeError):
    """There is no room, or no more."""

    code = "capacity-error"


class EverythingPinned(CapacityError):
    """All residents that could make room are pinned."""

    code = "everything-pinned"


class QueueFull(CapacityError):
    """Too many requests wait already."""

    code = "queue-full"


class ShuttingDown(CapacityError):
    """The server is on its way out."""

    code = "shutting-down"


class KeepsFailing(CapacityError):
    """The engine has failed again and again, and is not started for a while.

    `facts` hold `retry_after` (seconds), `cause`, `last_lines` and `incident`.
    """

    code = "keeps-failing"


class DeviceQuarantined(CapacityError):
    """The device that an engine needs has not given back its memory.

    `facts` hold `device`, `bytes` and `held_by` (`pid`, `program`, `bytes`).
    """

    code = "device-quarantined"


# ---- the wire to children


class UpstreamError(LemonadeError):
    """The conversation with a child failed."""

    code = "upstream-error"


class ConnectionLost(UpstreamError):
    """The child closed the connection before its answer was complete."""

    code = "connection-lost"


class UpstreamTimeout(UpstreamError):
    """The child did not answer in time."""

    code = "upstream-timeout"


class UpstreamRefused(UpstreamError):
    """The child does not accept connections."""

    code = "upstream-refused"


class GarbledAnswer(UpstreamError):
    """What the child sent is not HTTP as we may pass it on."""

    code = "garbled-answer"


class AdapterRefused(UpstreamError):
    """The engine did not take an adapter; the message quotes it."""

    code = "adapter-refused"


# ---- the caller's side


class RequestError(LemonadeError):
    """The request is wrong."""

    code = "request-error"


class MalformedRequest(RequestError):
    """The request cannot be read, or a field is missing or of the wrong type."""

    code = "malformed-request"


class WrongOperation(RequestError):
    """The model or its engine cannot do that."""

    code = "wrong-operation"


class NotAuthorised(RequestError):
    """A key is missing or wrong."""

    code = "not-authorised"


class ForbiddenOrigin(RequestError):
    """A web page of that origin may not talk to this server."""

    code = "forbidden-origin"


class NotLoaded(RequestError):
    """The model is not loaded."""

    code = "not-loaded"


class NoSuchRoute(RequestError):
    """There is nothing at that path."""

    code = "no-such-route"


class UnknownIncident(RequestError):
    """No record of such a failure is kept."""

    code = "unknown-incident"


class CannotRestart(RequestError):
    """Only who started the server can start it again."""

    code = "cannot-restart"


class ServerUnreachable(LemonadeError):
    """No Lemonade server answers at that address."""

    code = "server-unreachable"


class ServerRefused(LemonadeError):
    """The server answered with an error; the message is the server's own.

    `facts` hold the HTTP `status` (200 inside a stream) and, if the server gave one, the `code`.
    """

    code = "server-refused"


class NoAnswer(LemonadeError):
    """A person was asked something and gave no answer."""

    code = "no-answer"
