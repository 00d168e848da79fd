"""What people wrote: settings, declarations, the files they are in, and who may read those."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lemonade.catalog import CatalogReview
from lemonade.config import CONFIG_FILE, AccessKeys, ConfigReview
from lemonade.core.records import dataclass
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence

DOCUMENTS: Final = ("user_models.json", "recipe_options.json")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", ""})
_OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Written:
    """What there is to look at.

    Attributes:
        folder: the config directory.
        config: the settings.
        catalog: the declarations.
        access: the server's keys.
        host: where the server would listen.
        missing_roots: folders that LEMONADE_CATALOG names and that are not there.
        secrets: files that hold nothing but a secret, whether they are there or not.
    """

    folder: Path
    config: ConfigReview
    catalog: CatalogReview
    access: AccessKeys
    host: str
    missing_roots: Sequence[Path] = ()
    secrets: Sequence[Path] = ()


def check_settings(written: Written) -> tuple[Finding, ...]:
    """Look at everything people wrote."""
    book = Notebook("config")
    _look_at_settings(book, written.config, sure=written.catalog.catalog is not None)
    _look_at_documents(book, written.folder)
    _look_at_catalog(book, written)
    _look_at_secrets(book, written)
    if written.host not in _LOOPBACK and not written.access.api_key:
        book.warn(
            "open-to-all",
            f"The server listens on {written.host}, and no LEMONADE_API_KEY is set: anybody who "
            "reaches this machine may use it.",
            Evidence("host", written.host),
            fix="Set LEMONADE_API_KEY for the server, or listen on localhost only: `lemonade "
            "config set host=localhost`.",
        )
    path = written.folder / CONFIG_FILE
    said = f"{path} is in order" if written.config.document is not None else "all are defaults"
    own = len(written.catalog.overlays) or "no"
    book.ok_unless_trouble(f"Settings: {said}; {own} declarations of your own.")
    return book.findings


def _look_at_settings(book: Notebook, config: ConfigReview, *, sure: bool) -> None:
    for broken in config.broken:
        tell = book.error if broken.fatal else book.warn
        tell(
            "bad-settings",
            f"{broken.file} does not count as it is. {broken.reason}",
            Evidence(str(broken.file), broken.reason),
            fix=broken.remedy or "Correct it, or remove the key: then the default holds.",
        )
    for unknown in config.unknown if sure else ():
        book.warn(
            "unknown-key",
            f"'{unknown.key}' in {unknown.file} is no setting, and nothing follows from it.",
            Evidence(str(unknown.file), unknown.key),
            fix=f"{unknown.remedy} Remove it if nobody else needs it.",
        )


def _look_at_documents(book: Notebook, folder: Path) -> None:
    for name in DOCUMENTS:
        path = folder / name
        try:
            good = isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
            why = "it does not hold a JSON object"
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            good, why = False, str(error)
        if not good:
            book.warn(
                "bad-document",
                f"{path} cannot be used: {why}. The next server renames it and starts without.",
                Evidence(str(path), why),
                fix="Repair it, or put back a copy of it.",
            )
    for path in sorted(folder.glob("*.corrupted*")):
        book.note(
            "put-aside",
            f"{path.name} could not be read once and was put aside.",
            Evidence(str(path), "is there"),
            fix=f"Take what you need out of it, then `rm {path}`.",
        )


def _look_at_catalog(book: Notebook, written: Written) -> None:
    for error in written.catalog.broken:
        file = str(error.facts.get("file") or error.facts.get("path") or "a declaration")
        book.error(
            "bad-declaration",
            f"A declaration is wrong, and no server starts with it. {error.message}",
            Evidence(file, error.message.removeprefix(f"{file}: ")),
            fix=error.remedy
            or (
                f"Correct {file}, or take it away."
                if written.catalog.catalog is not None
                else "Install Lemonade again."
            ),
        )
    for root in written.missing_roots:
        book.warn(
            "no-such-folder",
            f"LEMONADE_CATALOG names {root}, which is not a folder.",
            Evidence("$LEMONADE_CATALOG", str(root)),
            fix="Correct the variable; its folders are separated like those of PATH.",
        )
    for path in written.catalog.overlays:
        book.note(
            "own-declaration",
            f"{path} adds to what came with Lemonade, or replaces it.",
            Evidence(str(path), "is read"),
        )


def _look_at_secrets(book: Notebook, written: Written) -> None:
    config = written.folder / CONFIG_FILE
    for path in (*written.secrets, config, written.folder):
        mode = _mode(path)
        if mode is None:
            continue
        seen = Evidence(str(path), f"mode {mode:04o}")
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            book.warn(
                "others-may-write",
                f"Other users may change {path}, and with it what the server runs.",
                seen,
                fix=f"`chmod go-w {path}`.",
            )
        holds_secret = path in written.secrets or (
            path == config and _has_headers(written.config.document)
        )
        if holds_secret and mode & _OTHERS_READ:
            book.warn(
                "secret-readable",
                f"Other users may read the secret in {path}.",
                seen,
                fix=f"`chmod 600 {path}`.",
            )


def _has_headers(document: Mapping[str, object] | None) -> bool:
    """Whether the settings hold headers for a collector, which are mostly a key."""
    place: object = document
    for key in ("telemetry", "otlp", "headers"):
        place = place.get(key) if isinstance(place, Mapping) else None
    return bool(place)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
