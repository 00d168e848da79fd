"""Everything the checks look at, gathered once: this machine, its files, the environment."""

from __future__ import annotations

import os
import pwd
import resource
import site
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.catalog import CatalogReview, review_catalog, sources, trusted
from lemonade.checkpoints import HubAccess, hub_access
from lemonade.config import AccessKeys, ConfigReview, review_config
from lemonade.core.records import dataclass
from lemonade.doctor.devices import User
from lemonade.doctor.disk import GB, Place
from lemonade.doctor.memory import Limits
from lemonade.doctor.packages import Python
from lemonade.doctor.ports import Listening
from lemonade.hardware import Machine, detect, real_instruments
from lemonade.installer import ReleaseHosts
from lemonade.storage import Directories

_TOKENS: Final = ("token", "stored_tokens")
_YES: Final = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One machine, as one user sees it.

    Attributes:
        root: of the machine's files.
        version: of this Lemonade.
        secrets: files that hold nothing but a secret.
    """

    root: Path
    version: str
    environ: Mapping[str, str]
    directories: Directories
    machine: Machine
    user: User
    limits: Limits
    python: Python
    config: ConfigReview
    catalog: CatalogReview
    access: AccessKeys
    listening: Listening
    releases: ReleaseHosts
    hub: HubAccess
    secrets: tuple[Path, ...]

    @property
    def bundles(self) -> Path:
        """Where engines are installed."""
        return self.directories.cache / "bin"

    @property
    def logs(self) -> Path:
        """Where the logs of engines are."""
        return self.directories.state / "logs"

    @property
    def ledger(self) -> Path:
        """Where children are recorded."""
        return self.directories.state / "children"

    @property
    def offline(self) -> str:
        """Who decided that nothing may be fetched; empty if nobody did."""
        if self.config.settings.offline:
            return "the setting offline"
        if self.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
            return "HF_HUB_OFFLINE"
        return ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where things are kept."""
        folders = self.directories
        return (
            Place("cache", folders.cache, 5 * GB, runs=True),
            Place("models", self.hub.cache_dir, 10 * GB),
            Place("config", folders.config, 0),
            Place("state", folders.state, 0),
            Place("runtime", folders.runtime, 0, lasting=False),
        )


def look_around(
    directories: Directories,
    environ: Mapping[str, str],
    version: str,
    *,
    host: str | None = None,
    port: int | None = None,
    root: Path = Path("/"),
) -> Surroundings:
    """Look at the machine we run on. Blocks; writes nothing.

    Args:
        directories: of the server.
        environ: its environment, as far as it is ours.
        version: of this Lemonade.
        host: where the server would listen; `None` takes the setting.
        port: likewise.
        root: of the machine's files.
    """
    catalog = review_catalog(
        sources(environ, directories.config), lambda: trusted(environ, directories.config)
    )
    declared = catalog.catalog
    config = review_config(directories, environ, declared.sections() if declared else {})
    settings = config.settings
    hub = hub_access(environ, settings.models_dir)
    home = environ.get("HOME", "")
    socket = settings.websocket_port
    hub_home = Path(environ.get("HF_HOME") or f"{home or '~'}/.cache/huggingface")
    secrets = (*(hub_home / name for name in _TOKENS), Path(home or "/nowhere", ".netrc"))
    return Surroundings(
        root=root,
        version=version,
        environ=environ,
        directories=directories,
        machine=detect(root, real_instruments(environ)),
        user=User(os.geteuid(), _user_name(), frozenset({os.getegid(), *os.getgroups()}), home),
        limits=Limits(
            files=_limit(resource.RLIMIT_NOFILE, hard=True),
            locked_bytes=_limit(resource.RLIMIT_MEMLOCK),
        ),
        python=Python(tuple(sys.path), _user_site()),
        config=config,
        catalog=catalog,
        access=AccessKeys.from_environ(environ),
        listening=Listening(
            host=settings.host if host is None else host,
            port=port or settings.port,
            websocket=socket if isinstance(socket, int) else 0,
        ),
        releases=ReleaseHosts.from_environ(environ),
        hub=hub,
        secrets=secrets,
    )


def _limit(kind: int, *, hard: bool = False) -> int:
    value = resource.getrlimit(kind)[1 if hard else 0]
    return -1 if value == resource.RLIM_INFINITY else value


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _user_site() -> str:
    folder = site.getusersitepackages()
    return folder if site.ENABLE_USER_SITE and folder in sys.path else ""
