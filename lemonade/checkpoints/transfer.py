"""One content from the hub to this disk: continued where it ended, verified, or gone.

huggingface-hub no longer continues a download that was interrupted: it fetches into a file of a
random name and removes it. Models are large and lines are cut, so the bytes are read here, with
huggingface-hub's session, headers and redirects, into `<etag>.incomplete`. Whatever happens, that
file holds the first bytes of the content or does not exist. The caller holds the content's lock.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from lemonade.checkpoints.failures import may_pass, transport
from lemonade.checkpoints.gguf_header import is_gguf_file
from lemonade.checkpoints.hub_api import Report
from lemonade.checkpoints.patience import Patience
from lemonade.checkpoints.threads import StopSignal
from lemonade.core.errors import DamagedFile
from lemonade.core.records import dataclass
from lemonade.planning.gguf import is_gguf

_REPORT_EVERY: Final = 0.1
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be fetched.

    Attributes:
        path: in the repository, for its ending and for messages.
        url: where; asked anew at every try, as what it leads to expires.
        headers: of every request.
        size_bytes: 0 if the hub does not say.
        sha256: of the content; empty if the hub does not say.
        git_sha1: git's name of the content; empty likewise.
    """

    path: str
    url: str
    headers: Mapping[str, str]
    size_bytes: int = 0
    sha256: str = ""
    git_sha1: str = ""


def transfer(
    content: Content, partial: Path, report: Report, stop: StopSignal, patience: Patience
) -> None:
    """Fill `partial` with the whole content, and verify it.

    Raises:
        DamagedFile: what came is not what the hub says it is; `partial` is gone.
        Stopped: told to; `partial` holds what came so far.
        Exception: what huggingface-hub, its HTTP library or the disk raised; likewise.
    """
    arrived = _fetch(content, partial, report, stop, patience)
    problem = _problem(content, partial, arrived)
    if problem and arrived.continued:
        # What was here before may be of somebody else's making: once from the beginning.
        partial.unlink()
        arrived = _fetch(content, partial, report, stop, patience)
        problem = _problem(content, partial, arrived)
    if problem:
        partial.unlink(missing_ok=True)
        raise DamagedFile(
            f"{content.path} arrived damaged: {problem}.",
            remedy="Pull again; if it stays so, the repository itself is broken.",
            facts={"file": content.path},
        )


def _fetch(
    content: Content, partial: Path, report: Report, stop: StopSignal, patience: Patience
) -> _Arrived:
    """Get all bytes."""
    with partial.open("a+b", buffering=0) as file:
        stream = _Stream(content, file.fileno(), report)
        stream.take_up(stop)
        failures = 0
        while not content.size_bytes or stream.have < content.size_bytes:
            before = stream.have
            try:
                stop.check()
                stream.read(stop, patience)
                if not content.size_bytes:
                    break
            except Exception as error:
                stop.check()
                if not may_pass(error, connecting=True):
                    raise
                failures = 1 if stream.have > before else failures + 1
                if failures > patience.retries:
                    raise
                stop.pause(patience.pause(failures))
            finally:
                stream.tell()
        os.fsync(file.fileno())
        return _Arrived(stream.have, stream.previously > 0, stream.digest())


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What is here: its size, whether some of it was here before, and its digest."""

    size_bytes: int
    continued: bool
    digest: str


class _Stream:
    """A growing file, its digest, and the answers that make it grow."""

    def __init__(self, content: Content, descriptor: int, report: Report) -> None:
        self.have = 0
        self.previously = 0
        self._content = content
        self._descriptor = descriptor
        self._report = report
        self._told = 0.0
        self._hash = _hash_for(content)

    def digest(self) -> str:
        """Of what is here."""
        return self._hash.hexdigest() if self._hash is not None else ""

    def tell(self) -> None:
        """Report how far it is."""
        self._told = time.monotonic()
        self._report(self.have, self.previously)

    def take_up(self, stop: StopSignal) -> None:
        """Look at what is here already."""
        size = os.fstat(self._descriptor).st_size
        if self._content.size_bytes and size > self._content.size_bytes:
            self._start_over()
            size = 0
        self.previously = size
        while self.have < size and (piece := os.pread(self._descriptor, _PIECE, self.have)):
            stop.check()
            self._count(piece)
        self.tell()

    def read(self, stop: StopSignal, patience: Patience) -> None:
        """Ask for the rest, and append it.

        Raises:
            Exception: what the HTTP library or the disk raised; what came before is kept.
        """
        from huggingface_hub import get_session

        # Compressed, the count of bytes would not be the file's.
        headers = {**self._content.headers, "accept-encoding": "identity"}
        if self.have:
            headers["range"] = f"bytes={self.have}-"
        with (
            get_session().stream(
                "GET",
                self._content.url,
                headers=headers,
                timeout=patience.silent_within,
                follow_redirects=True,
            ) as response,
            stop.cutting(lambda: _hang_up(response)),
        ):
            if self.have and response.status_code == 416:
                self._start_over()
                return
            response.raise_for_status()
            if self.have and not _continues(response, self.have):
                self._start_over()
                if response.status_code != 200:
                    return
            before = self.have
            for chunk in response.iter_bytes():
                self._append(chunk)
                stop.check()
            if self.have == before and self.have < self._content.size_bytes:
                raise transport().RemoteProtocolError("the hub sent nothing")

    def _append(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            written = os.write(self._descriptor, view)
            self._count(view[:written])
            view = view[written:]
        if time.monotonic() - self._told >= _REPORT_EVERY:
            self.tell()

    def _count(self, piece: bytes | memoryview) -> None:
        self.have += len(piece)
        if self._hash is not None:
            self._hash.update(piece)

    def _start_over(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self.have = self.previously = 0
        self._hash = _hash_for(self._content)


class _Response(Protocol):
    """The part of the HTTP library's answer that is looked at here."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...


def _continues(response: _Response, have: int) -> bool:
    """Whether the answer begins at byte `have`."""
    span = response.headers.get("content-range", "")
    return response.status_code == 206 and span.startswith(f"bytes {have}-")


def _hang_up(response: _Response) -> None:
    """Make a thread that waits for bytes of this answer wait no longer.

    The socket is shut, not closed: closing would not wake the thread. Through the base class, as
    an encrypted socket would first talk to the other side.
    """
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if isinstance(connection, socket.socket):
        try:
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            return  # it is over already


def _problem(content: Content, file: Path, arrived: _Arrived) -> str:
    """What is wrong with a finished file; empty if nothing is."""
    if content.size_bytes and arrived.size_bytes != content.size_bytes:
        return f"it has {arrived.size_bytes} bytes instead of {content.size_bytes}"
    if content.sha256 and arrived.digest != content.sha256.lower():
        return "its SHA-256 is not the one the hub names"
    if not content.sha256 and arrived.digest and arrived.digest != content.git_sha1.lower():
        return "it is not the content git names"
    if is_gguf(content.path) and not is_gguf_file(file):
        return "it does not start like a GGUF file"
    return ""


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def _hash_for(content: Content) -> _Hash | None:
    """What the content is to be checked with; git's names count the size as well."""
    if content.sha256:
        return hashlib.sha256()
    if content.git_sha1 and content.size_bytes:
        return hashlib.sha1(b"blob %d\0" % content.size_bytes, usedforsecurity=False)
    return None
