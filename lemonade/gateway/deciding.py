"""What a wish to have a backend comes to: a plan, nothing to do, or something for a person to do.

Who has an engine keeps it: where nothing may be fetched, or nobody answers, what is installed is
as good as what is wanted, and the answer says so. Only who insists or names one is refused.
"""

from __future__ import annotations

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import InstallForbidden, LemonadeError, UnsupportedHere
from lemonade.core.progress import ProgressListener
from lemonade.core.records import dataclass
from lemonade.gateway.parts import Parts
from lemonade.installer import is_address
from lemonade.planning import (
    LATEST,
    InstallPlan,
    Selection,
    judge,
    plan_install,
    select,
    version_for,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done.

    Attributes:
        plan: to be carried out; `None` if there is nothing to install.
        action: what a person must do first, as a sentence; nothing is installed then.
        note: what people should know about it, as a sentence; may be empty.
    """

    plan: InstallPlan | None = None
    action: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Handed:
    """What somebody hands over to be installed.

    Attributes:
        source: an absolute path on the server's machine, or an address.
        sha256: what it is said to be; may be empty.
        version: what it is to be called; empty leaves that to us.
        force: whether it is wanted also where it does not run, or is here already.
    """

    source: str
    sha256: str = ""
    version: str = ""
    force: bool = False


async def decide(
    parts: Parts, backend: BackendSpec, *, force: bool, version: str = ""
) -> Decision:
    """Look at what is wanted, what is here and what is allowed.

    Args:
        parts: the server's.
        backend: what is wished for.
        force: whether it is wanted also where it does not run, or is here already.
        version: the release that was named, if one was.

    Raises:
        UnsupportedHere: it does not run here, or cannot be had like that.
        InstallForbidden: it would have to be fetched, and nothing may be.
        InstallError: the release does not have it.
    """
    note = "" if version else await _look_for_latest(parts, backend)
    selection = parts.selections.of(backend, version)
    verdict = judge(selection.spec, parts.machine)
    if not verdict.supported and not force:
        if verdict.actionable:
            return Decision(action=f"{verdict.reason} {verdict.fix}")
        raise UnsupportedHere(
            f"{backend.id} cannot run here: {verdict.reason}", remedy=verdict.fix
        )
    if version:
        _check_against_setting(parts, selection)
    active = parts.selections.active(backend) if version else parts.bundles.active(selection)
    if selection.path is not None:
        return Decision(note=f"{backend.id} is yours: {selection.path}. Nothing was installed.")
    if not selection.spec.pin.fetched:
        return Decision(note="" if active is not None else _not_ours(selection))
    good = active is not None and active.verified and selection.satisfied_by(active.version)
    if active is not None and good and not force:
        return Decision(note=_stays(parts, backend, active, note) if note else "")
    plan = _plan(parts, selection, force=force)
    if plan.present is not None and not force:
        return Decision(plan)
    kept = active if not force and not version else None
    if why := _forbidden(parts):
        if kept is not None:
            forbidden = f"the setting '{why}' forbids fetching {plan.version}"
            return Decision(note=_stays(parts, backend, kept, forbidden))
        raise InstallForbidden(
            f"The setting '{why}' forbids installing {backend.id}.",
            remedy=f"`lemonade config set {why}=false` allows it.",
        )
    if kept is not None and plan.release is not None:
        resolved = await parts.installer.resolve(plan)
        if resolved.unreachable:
            return Decision(note=_stays(parts, backend, kept, resolved.unknown))
    return Decision(plan)


def check_given(parts: Parts, backend: BackendSpec, wish: Handed) -> Decision | None:
    """What can be said before anything is looked at; `None` if it may be taken.

    Raises:
        UnsupportedHere: it does not run here, or is nothing that we install.
        InstallForbidden: it would have to be fetched, and nothing may be.
    """
    described = parts.selections.described(backend)
    if not described.pin.fetched:
        raise UnsupportedHere(
            f"{backend.id} is not installed by Lemonade.",
            remedy="Name your program in the setting of this backend.",
        )
    select(described, parts.machine, version=wish.version)
    verdict = judge(described, parts.machine)
    if not verdict.supported and not wish.force:
        if verdict.actionable:
            return Decision(action=f"{verdict.reason} {verdict.fix}")
        raise UnsupportedHere(
            f"{backend.id} cannot run here: {verdict.reason}", remedy=verdict.fix
        )
    if is_address(wish.source) and (why := _forbidden(parts)):
        raise InstallForbidden(
            f"The setting '{why}' forbids fetching {backend.id}.",
            remedy=f"`lemonade config set {why}=false` allows it; so does a file on this machine.",
        )
    return None


async def decide_given(
    parts: Parts, backend: BackendSpec, wish: Handed, listen: ProgressListener
) -> Decision:
    """Look at what somebody hands over; an address is fetched first. `check_given` came before.

    Raises:
        LemonadeError: it is not there, or not what is needed.
    """
    machine, described = parts.machine, parts.selections.described(backend)
    wanted = select(described, machine, version=wish.version)
    given = await parts.installer.take(
        wish.source, wanted.spec, machine, sha256=wish.sha256, listen=listen
    )
    if not wish.version and described.pin.source == "github":
        version = version_for(described, machine, given.name, given.sha256)
        wanted = parts.selections.of(backend, version)
    elif wish.version:
        wanted = parts.selections.of(backend, wish.version)
    present, root = parts.bundles.present(backend), parts.bundles.root
    plan = plan_install(wanted, machine, present, root, force=wish.force, given=given)
    if plan.present is not None and not wish.force:
        note = f"{backend.id} {plan.version} is installed already; --force installs it again."
        return Decision(plan, note=note)
    note = f"{backend.id} {plan.version} was installed from {given.origin}."
    if given.vouched_by == "first use":
        note += f" Nobody vouches for it; its SHA-256 is {given.sha256}."
    return Decision(plan, note=note)


def _check_against_setting(parts: Parts, selection: Selection) -> None:
    """What a setting names is used whatever is installed: a command cannot choose another."""
    backend = selection.spec
    setting, pin = parts.selections.setting(backend), parts.selections.pin(backend)
    if selection.named and pin not in ("builtin", LATEST):
        raise InstallForbidden(
            f"The setting {setting} says which {backend.id} is used: {pin}.",
            remedy=f"`lemonade config set {setting}={backend.pin.version}` names this one.",
        )


async def _look_for_latest(parts: Parts, backend: BackendSpec) -> str:
    """Ask the publisher, if the operator follows it; why the latest is not known, or empty."""
    described = parts.selections.described(backend)
    if parts.selections.pin(backend) != LATEST or described.pin.source != "github":
        return ""
    if why := _forbidden(parts):
        return f"the setting '{why}' forbids looking for a newer one"
    try:
        newest = await parts.latest.refresh(described)
    except LemonadeError as error:
        return str(error.facts.get("reason") or error.message)
    return "" if newest else "no release of its publisher is for this machine"


def _plan(parts: Parts, selection: Selection, *, force: bool) -> InstallPlan:
    present, root = parts.bundles.present(selection.spec), parts.bundles.root
    return plan_install(selection, parts.machine, present, root, force=force)


def _forbidden(parts: Parts) -> str:
    """The setting that forbids fetching; empty if none does."""
    settings = parts.configuration.settings
    if settings.no_fetch_executables:
        return "no_fetch_executables"
    return "offline" if settings.offline else ""


def _stays(parts: Parts, backend: BackendSpec, active: Bundle, why: str) -> str:
    version = parts.bundles.version_of(active)
    return f"{backend.id} stays at {version}: {why.rstrip('.')}."


def _not_ours(selection: Selection) -> str:
    spec = selection.spec
    missing = f"{spec.pin.executable or 'its program'} is not on PATH"
    return f"{spec.id} is not installed by Lemonade, and {missing}."
