"""All checks, one after the other, on one machine. A check that fails is a finding itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lemonade.core.errors import LemonadeError
from lemonade.doctor.cgroups import check_cgroups
from lemonade.doctor.devices import check_access, check_devices
from lemonade.doctor.disk import check_disk, look_at_disk, read_mounts
from lemonade.doctor.engines import check_engines
from lemonade.doctor.finding import Finding, Level, Report, report_of
from lemonade.doctor.hosts import check_hosts
from lemonade.doctor.kernel import check_kernel
from lemonade.doctor.memory import check_memory
from lemonade.doctor.orphans import check_orphans
from lemonade.doctor.packages import check_packages
from lemonade.doctor.ports import check_ports, lemonade_at
from lemonade.doctor.reaching import ask_host
from lemonade.doctor.settings import Written, check_settings
from lemonade.doctor.shadowing import check_shadowing
from lemonade.doctor.surroundings import Surroundings
from lemonade.hardware import Evidence
from lemonade.storage import expanded

Check = Callable[[Surroundings], tuple[Finding, ...]]

CHECKS: Final[dict[str, tuple[str, Check]]] = {
    "devices": ("Devices", lambda s: check_devices(s.machine)),
    "access": ("Access to devices", lambda s: check_access(s.machine, s.root, s.user)),
    "kernel": (
        "Kernel and drivers",
        lambda s: check_kernel(s.machine, s.root, s.limits.locked_bytes),
    ),
    "memory": ("Memory and limits", lambda s: check_memory(s.machine, s.root, s.limits)),
    "cgroups": ("Cgroups of engines", lambda s: check_cgroups(s.root)),
    "libraries": (
        "Libraries of GPUs",
        lambda s: check_shadowing(s.environ, s.root, s.machine),
    ),
    "python": (
        "Python packages",
        lambda s: check_packages(s.environ, s.python, Path(s.user.home), _packages(s)),
    ),
    "config": ("Configuration", lambda s: check_settings(_written(s))),
    "disk": (
        "Disks",
        lambda s: check_disk(s.places, read_mounts(s.root), s.user.uid, look_at_disk),
    ),
    "engines": ("Installed engines", lambda s: check_engines(s.bundles)),
    "orphans": ("Engines left behind", lambda s: check_orphans(s.ledger)),
    "ports": (
        "Ports",
        lambda s: check_ports(s.listening, s.version, lemonade_at(s.environ)),
    ),
    "hosts": (
        "Hosts of engines and models",
        lambda s: check_hosts(s.releases, s.hub, s.environ, s.offline, ask_host),
    ),
}
"""Title and function of every check, in the order of the report."""


def examine(surroundings: Surroundings) -> Report:
    """Make every check. Blocks for some seconds where hosts do not answer; changes nothing."""
    return report_of(
        surroundings.version,
        [finding for name in CHECKS for finding in _made(name, surroundings)],
    )


def _made(name: str, surroundings: Surroundings) -> Iterator[Finding]:
    title, check = CHECKS[name]
    try:
        yield from check(surroundings)
    except (OSError, LemonadeError) as error:
        what = error.strerror or str(error) if isinstance(error, OSError) else error.message
        path = str(getattr(error, "filename", "") or name)
        yield Finding(
            name,
            Level.ERROR,
            "not-checked",
            f"{title} could not be looked at: {what}.",
            (Evidence(path, what),),
            f"Correct owner and permissions of {path}, and run `lemonade doctor` again.",
        )


def _packages(surroundings: Surroundings) -> set[str]:
    """Names of the packages that backends are made of, as Python imports them."""
    catalog = surroundings.catalog.catalog
    if catalog is None:
        return set()
    return {
        re.split(r"[=<>!~\[; ]", requirement, maxsplit=1)[0].replace("-", "_").lower()
        for spec in catalog.backends.values()
        for requirement in spec.pin.packages
    }


def _written(surroundings: Surroundings) -> Written:
    named = surroundings.environ.get("LEMONADE_CATALOG", "").split(os.pathsep)
    folders = [expanded(part).absolute() for part in named if part]
    return Written(
        folder=surroundings.directories.config,
        config=surroundings.config,
        catalog=surroundings.catalog,
        access=surroundings.access,
        host=surroundings.listening.host,
        missing_roots=[folder for folder in folders if not folder.is_dir()],
        secrets=surroundings.secrets,
    )
