"""The support archive: a `.tar.gz` that only its owner may read, whole or not there at all.

Everything in it goes through one `Redactor`, names of files too. Nothing of the archive's own form
tells who made it: no user, no group, no name inside the compression.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import secrets
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.errors import BadConfigFile, OutOfDisk
from lemonade.doctor.contents import documents, logs
from lemonade.doctor.finding import Report
from lemonade.doctor.redaction import Redactor
from lemonade.doctor.surroundings import Surroundings

FOLDER: Final = "lemonade-support"
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK)
_READ_ME: Final = """\
What Lemonade knows about one machine, for whoever helps with it.

doctor.json       what `lemonade doctor` found
hardware.json     devices, and why some cannot be used
backends.json     what runs on this machine, and what refuses the rest
settings.json     in force; config/ has the files they come from
catalog.json      where declarations are read from, and which are your own
bundles.json      engines on the disk, with their receipts
children.json     engines that are recorded as running
environment.json  variables that engines look at
logs/             the last lines of the server's and the engines' logs

Keys, tokens, passwords, your home directory and your name have been taken out. No prompt, no
answer and no model is in here by intention; but engines may print anything into their logs. Look
through it before you send it.
"""


def write_archive(
    path: Path, surroundings: Surroundings, report: Report, *, replace: bool = False
) -> tuple[str, ...]:
    """Write the archive. Blocks.

    Args:
        path: of the file.
        surroundings: what it is about.
        report: what was found.
        replace: whether a file that is there may be replaced.

    Returns:
        The names of what is in it.

    Raises:
        BadConfigFile: the file is there already, or cannot be written.
        OutOfDisk: there is no space.
    """
    if not replace and os.path.lexists(path):
        raise _taken(path)
    members = list(_members(surroundings, report))
    data = _packed(members)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _name(temporary, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise OutOfDisk(f"There is no space left to write {path}.") from error
        raise BadConfigFile(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="Name a file in a folder of yours, on a disk that is no foreign system's.",
            facts={"path": str(path)},
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return tuple(name for name, _ in members)


def _name(temporary: Path, path: Path) -> None:
    """Give the file its name if nobody has it; unlike a rename, a link never takes one's place."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        # Sticks and shares have no links; there, looking first must do.
        if error.errno not in _NO_LINKS or os.path.lexists(path):
            raise
        temporary.rename(path)


def _taken(path: Path) -> BadConfigFile:
    return BadConfigFile(
        f"{path} is there already, and is not replaced.",
        remedy="Name another file, or add --force.",
        facts={"path": str(path)},
    )


def _members(surroundings: Surroundings, report: Report) -> Iterator[tuple[str, bytes]]:
    collected = list(documents(surroundings, report))
    user = surroundings.user
    homes = [user.home, os.path.realpath(user.home)] if user.home else []
    redactor = Redactor(
        surroundings.environ,
        homes=[home for home in homes if home not in ("/", "/root")],
        user=user.name,
        documents=[value for _, value in collected],
        secret_files=surroundings.secrets,
    )
    yield "README.txt", _READ_ME.encode()
    for name, value in collected:
        shown = redactor.value(value)
        yield name, (json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode()
    for name, text in logs(surroundings):
        yield redactor.text(name), redactor.text(text).encode()


def _packed(members: list[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in members:
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
