"""Where things are kept: the cache, config, runtime and state directories of one server.

Computed from the environment that is passed in, never from the process's own, and nothing is
created until `Directories.ensure` is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.core.errors import BadConfigFile, BadSetting
from lemonade.core.records import dataclass

_NAME: Final = "lemonade"


@dataclass(frozen=True, slots=True)
class Directories:
    """The four directories, absolute.

    Attributes:
        cache: what can be fetched again: engines, partial downloads.
        config: what people decided: `config.json`, `user_models.json`, `recipe_options.json`, and
            their own `backends/`, `recipes/` and `server_models.json`.
        runtime: what means nothing after a reboot: the log of the running server.
        state: what the next server must find: the ledger of children, and their logs.
    """

    cache: Path
    config: Path
    runtime: Path
    state: Path

    def ensure(self) -> None:
        """Create those that are missing, for this user only.

        Raises:
            BadConfigFile: one cannot be created.
        """
        for path in (self.cache, self.config, self.runtime, self.state):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise BadConfigFile(
                    f"The directory {path} cannot be created: {error.strerror or error}.",
                    remedy="Name others with LEMONADE_CACHE_DIR and LEMONADE_CONFIG_DIR.",
                    facts={"path": str(path)},
                ) from error


def directories(
    environ: Mapping[str, str], *, cache: Path | None = None, config: Path | None = None
) -> Directories:
    """Decide the directories.

    Cache: the argument, LEMONADE_CACHE_DIR, CACHE_DIRECTORY (systemd), XDG_CACHE_HOME, ~/.cache.
    Config: the argument, the cache argument if only that is given, LEMONADE_CONFIG_DIR,
    STATE_DIRECTORY (systemd), XDG_CONFIG_HOME, ~/.config. Runtime: XDG_RUNTIME_DIR,
    RUNTIME_DIRECTORY (systemd), `run` in the cache. State: `state` in the cache, unless nobody
    chose a cache and XDG_STATE_HOME is set.

    Raises:
        BadSetting: a home directory would be needed and nobody knows one.
    """
    chosen = cache or _path(environ.get("LEMONADE_CACHE_DIR"))
    if config is None:
        config = cache or _path(environ.get("LEMONADE_CONFIG_DIR"))
    cache_dir = (
        chosen
        or _first(environ.get("CACHE_DIRECTORY"))
        or _under(environ.get("XDG_CACHE_HOME"))
        or _home(environ) / ".cache" / _NAME
    ).absolute()
    config_dir = (
        config
        or _first(environ.get("STATE_DIRECTORY"))
        or _under(environ.get("XDG_CONFIG_HOME"))
        or _home(environ) / ".config" / _NAME
    ).absolute()
    runtime = (
        _under(environ.get("XDG_RUNTIME_DIR"))
        or _first(environ.get("RUNTIME_DIRECTORY"))
        or cache_dir / "run"
    )
    # A server with a cache of its own is a server of its own: its ledger must not be shared.
    state = None if chosen else _under(environ.get("XDG_STATE_HOME"))
    return Directories(cache_dir, config_dir, runtime, state or cache_dir / "state")


def expanded(text: str) -> Path:
    """The path, with the home directory for `~`; a `~name` that nobody has stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _first(text: str | None) -> Path | None:
    """The first of systemd's colon-separated directories."""
    return _path((text or "").partition(":")[0])


def _under(text: str | None) -> Path | None:
    """Our directory under an XDG base; relative bases are invalid and ignored, as XDG says."""
    return Path(text) / _NAME if text and Path(text).is_absolute() else None


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or environ.get("USERPROFILE")
    if home:
        return Path(home)
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError) as error:
        raise BadSetting(
            "There is no home directory to keep files in.",
            remedy="Set HOME, or LEMONADE_CACHE_DIR and LEMONADE_CONFIG_DIR.",
        ) from error
