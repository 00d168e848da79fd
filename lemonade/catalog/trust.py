"""Whose declarations are believed: the keys the operator trusts, and what they must have signed.

While no key is configured nothing is asked of anybody. With one, every declaration from outside
the package needs a signature by one of them; the package was trusted by installing it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lemonade.catalog.minisign import (
    BadSignature,
    PublicKey,
    is_comment,
    read_key,
    read_signature,
    verify,
)
from lemonade.catalog.sources import SITE, shipped
from lemonade.core.errors import BadConfigFile, BadDescriptor
from lemonade.storage import expanded

log = logging.getLogger(__name__)

KEYS_FILE: Final = "trusted_keys"
SUFFIX: Final = ".minisig"
KINDS: Final = ("backends", "recipes")


class Trust:
    """Judges the declarations by their signatures; immutable."""

    def __init__(self, keys: Iterable[PublicKey] = (), packaged: Path | None = None) -> None:
        """Nothing is looked at yet.

        Args:
            keys: those to trust; none means that nothing is asked.
            packaged: the folder whose declarations need no signature.
        """
        self._keys = tuple(keys)
        # The very folders, so that nothing counts as packaged that only lies somewhere below.
        within = () if packaged is None else (packaged, *(packaged / kind for kind in KINDS))
        self._packaged = frozenset(within)

    def covers(self, path: Path) -> bool:
        """Whether this file needs a signature."""
        return bool(self._keys) and path.parent not in self._packaged

    def check(self, path: Path, content: bytes) -> None:
        """Refuse a declaration that needs a signature and has no good one.

        Raises:
            BadDescriptor: with what is wrong about it.
        """
        beside = path.with_name(f"{path.name}{SUFFIX}")
        if not self.covers(path):
            if not self._keys and beside.is_file():
                log.info("%s is signed, and no key is configured to judge it by.", path)
            return
        try:
            self._judge(beside.read_bytes(), content)
        except FileNotFoundError as error:
            raise _refused(
                path, f"it is not signed: there is no {beside.name} beside it"
            ) from error
        except OSError as error:
            reason = f"its signature {beside.name} cannot be read: {error.strerror or error}"
            raise _refused(path, reason) from error
        except BadSignature as error:
            raise _refused(path, f"its signature {beside.name} is not valid: {error}") from error

    def _judge(self, signed: bytes, content: bytes) -> None:
        signature = read_signature(signed)
        for key in self._keys:
            if key.id == signature.key_id:
                return verify(key, signature, content)
        raise BadSignature(f"the key {signature.key_name} it was made with is not a trusted one")


NOTHING_ASKED: Final = Trust()
"""For those who read what they wrote themselves."""


def trusted(environ: Mapping[str, str], config_dir: Path) -> Trust:
    """The keys of this machine and of its operator: those in any of three files.

    They are /etc/lemonade/trusted_keys, `trusted_keys` in the configuration directory, and the one
    that LEMONADE_TRUSTED_KEYS names.

    Raises:
        BadConfigFile: one holds something else or no key at all, or cannot be read; then it is not
            known who is trusted, and nobody is.
    """
    named = environ.get("LEMONADE_TRUSTED_KEYS", "")
    found = [path for path in (SITE / KEYS_FILE, config_dir / KEYS_FILE) if path.exists()]
    if named:
        found.append(expanded(named).absolute())
    keys = [key for path in dict.fromkeys(found) for key in read_keys(path)]
    return Trust(dict.fromkeys(keys), packaged=shipped())


def read_keys(path: Path) -> tuple[PublicKey, ...]:
    """The keys in a file, one a line; lines with `#` or minisign's own comment say nothing.

    Raises:
        BadConfigFile: a line is no key, there is none, or the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadConfigFile(
            f"The trusted keys in {path} cannot be read: {reason}.",
            remedy="Without them nobody knows whose backends to believe.",
            facts={"path": str(path)},
        ) from error
    keys: list[PublicKey] = []
    for number, line in enumerate(lines, 1):
        if is_comment(line):
            continue
        try:
            keys.append(read_key(line))
        except ValueError as error:
            raise BadConfigFile(
                f"{path}, line {number}, is not a public key: {error}.",
                remedy="It is the second line of minisign's .pub file.",
                facts={"path": str(path), "line": number},
            ) from error
    if not keys:
        raise BadConfigFile(
            f"{path} holds no key.",
            remedy="Remove it if no signatures are wanted.",
            facts={"path": str(path)},
        )
    return tuple(keys)


def _refused(path: Path, reason: str) -> BadDescriptor:
    return BadDescriptor(
        f"{path} is not used, because {reason}.",
        remedy=f"Sign it with `minisign -S -m {path}`, or take it away.",
        facts={"file": str(path)},
    )
