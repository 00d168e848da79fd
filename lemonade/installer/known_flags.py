"""Which flags an installed engine knows: asked of it once, and kept beside it.

The engine's own help is the only list that is true of a build. It is asked when it is installed,
or at the first load that needs it, in the environment its children get, for a limited time, and
ended with all it started. A bundle of ours keeps the answer
in its folder; of somebody else's program it is kept in the cache, and forgotten when the program's
file changes. What cannot be learnt is not held against anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from lemonade.catalog import HelpSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import LemonadeError
from lemonade.installer.environments import printed
from lemonade.planning import flags_in
from lemonade.storage import read_json, write_json

log = logging.getLogger(__name__)

FILE: Final = "known-flags.json"
_SCHEMA: Final = 1
_FEWEST: Final = 3
"""A page with fewer flags is a complaint, or help about the help."""


class KnownFlags:
    """Learns and remembers. Made by the composition root. Nobody is asked twice at a time."""

    def __init__(self, cache: Path) -> None:
        """`cache` is where answers of programs that are not ours are kept; it need not exist."""
        self._cache = cache
        self._known: dict[tuple[Path, str], frozenset[str]] = {}
        self._locks: dict[tuple[Path, str], asyncio.Lock] = {}

    async def of(
        self,
        bundle: Bundle,
        program: Sequence[str],
        env: Mapping[str, str],
        spec: HelpSpec,
        *,
        ask: bool = True,
    ) -> frozenset[str] | None:
        """Every spelling of its flags; `None` if they cannot be learnt.

        Args:
            bundle: the engine.
            program: how it is started, up to its first argument of ours.
            env: its environment.
            spec: how it is asked.
            ask: whether it may be started for it; otherwise only what is kept counts.
        """
        stamp = await asyncio.to_thread(_stamp, bundle, program)
        file = self._file(bundle, program)
        key = (file, stamp)
        if key in self._known:
            return self._known[key]
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key in self._known:
                return self._known[key]
            found = await asyncio.to_thread(_kept, file, stamp)
            if found is None and ask:
                found = await self._asked(program, env, spec)
                if found is not None:
                    await asyncio.to_thread(_keep, file, stamp, found)
            if found is not None:
                self._known[key] = found
            return found

    async def _asked(
        self, program: Sequence[str], env: Mapping[str, str], spec: HelpSpec
    ) -> frozenset[str] | None:
        for words in spec.argv:
            argv = (*program, *words)
            flags = flags_in(await printed(argv, env, within=spec.within))
            if len(flags) >= _FEWEST:
                log.info("%s: learnt %d flags", " ".join(argv), len(flags))
                return flags
        log.warning("%s: its flags cannot be learnt from its help", " ".join(program))
        return None

    def _file(self, bundle: Bundle, program: Sequence[str]) -> Path:
        if bundle.removable:
            return bundle.root / FILE
        name = hashlib.sha256("\0".join(program).encode()).hexdigest()[:32]
        return self._cache / f"{name}.json"


def _stamp(bundle: Bundle, program: Sequence[str]) -> str:
    """What changes when the engine does: its version, and the files it is started from.

    Where a bundle of ours lies is no part of it: it is asked before it is put in its place.
    """
    parts = [bundle.version]
    for word in program:
        parts.append(_inside(bundle, word))
        with suppress(OSError):
            stat = Path(word).stat()
            parts.append(f"{stat.st_size}:{stat.st_mtime_ns}")
    return "\n".join(parts)


def _inside(bundle: Bundle, word: str) -> str:
    root = f"{bundle.root}{os.sep}"
    return f"{{root}}/{word.removeprefix(root)}" if word.startswith(root) else word


def _kept(file: Path, stamp: str) -> frozenset[str] | None:
    try:
        content = read_json(file)
    except (OSError, LemonadeError):
        return None
    if content is None or content.get("schema") != _SCHEMA or content.get("stamp") != stamp:
        return None
    flags = content.get("flags")
    return frozenset(map(str, flags)) if isinstance(flags, list) else None


def _keep(file: Path, stamp: str, flags: frozenset[str]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"schema": _SCHEMA, "stamp": stamp, "flags": sorted(flags)})
    except OSError as error:  # a folder that is not ours to write: it is asked again
        log.debug("%s cannot be written: %s", file, error)
