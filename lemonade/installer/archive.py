"""Archives of strangers, unpacked: only files, folders and links that stay inside. Blocks.

What an archive holds is decided here entry by entry, before anything is written: no path leads
out, nothing is written through a link, nothing is written twice, and nothing is taken but files,
folders and links. The modes are the archive's own without set-uid, set-gid and sticky bits, and
without the right of others to write.

Formats: tar with gzip, xz or bzip2, and zip; perhaps cut into parts.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import IO, Final

from lemonade.core.errors import SetupFailed, UnsafeArchive
from lemonade.core.records import dataclass
from lemonade.installer.parts import JoinedFiles
from lemonade.installer.unpacked import Limits, Report, UnpackedFile
from lemonade.installer.xz import XzStream

_PIECE: Final = 1 << 20
_LARGEST_HEADERS: Final = 4 << 20
_LONGEST_LINK: Final = 4096
_ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_DAMAGE: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError,
    NotImplementedError, UnicodeError, OverflowError, ValueError,
)  # fmt: skip
"""What the standard library says of a file that is not an archive, or half of one."""


def unpack(
    name: str, files: Sequence[Path], into: Path, limits: Limits, report: Report
) -> tuple[UnpackedFile, ...]:
    """Unpack the archive `name`, which is all `files` in a row, into the new directory `into`.

    One directory that everything is in is left out. Returns the files; links are not among them.

    Raises:
        UnsafeArchive: an entry would do harm; the message names it.
        SetupFailed: it is damaged, or of a kind we do not know.
        OSError: the disk failed.
        Exception: what `report` raised.
    """
    raw = into.with_name(f"{into.name}.raw")
    raw.mkdir(mode=0o700)
    joined = JoinedFiles(files)
    writer = _Writer(name, raw, limits, joined)
    try:
        with joined:
            _unpack_all(name, joined, writer, report)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # it is the disk's; bzip2 says without a number that its data are wrong
        raise SetupFailed(
            f"{name} cannot be unpacked: {str(error) or 'it ends too early'}.",
            remedy="The publisher's file is damaged, or not an archive of its kind.",
        ) from error
    prefix = writer.finish()
    top = raw / prefix if prefix else raw
    top.rename(into)
    if prefix:
        raw.rmdir()
    _check_links(name, into, writer.links, prefix)
    start = len(prefix) + 1 if prefix else 0
    return tuple(
        UnpackedFile(file.path[start:], file.size_bytes, file.sha256) for file in writer.files
    )


def _unpack_all(name: str, joined: JoinedFiles, writer: _Writer, report: Report) -> None:
    def tell() -> None:
        report(joined.furthest, joined.size_bytes)

    writer.tell = tell
    if name.endswith(".zip"):
        _unpack_zip(joined, writer)
        return
    buffered: io.BufferedReader = io.BufferedReader(joined, _PIECE)
    with _plain(name, buffered, writer.limits) as plain:
        _unpack_tar(_Measured(plain, name), writer)
    tell()


def _plain(
    name: str, packed: io.BufferedReader, limits: Limits
) -> contextlib.AbstractContextManager[IO[bytes]]:
    if name.endswith((".tar.gz", ".tgz")):
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if name.endswith((".tar.xz", ".txz")):
        return io.BufferedReader(XzStream(packed, name, limits.dictionary_bytes), _PIECE)
    if name.endswith((".tar.bz2", ".tbz2")):
        return bz2.BZ2File(packed)
    raise SetupFailed(
        f"{name} is not a kind of archive that Lemonade can unpack.",
        remedy="It must be a tar file with gzip, xz or bzip2, or a zip file.",
    )


class _Measured:
    """Unpacked bytes, with a limit on those that are not the content of a file.

    The standard library reads extended headers whole into memory, however long they say they are.
    """

    def __init__(self, plain: IO[bytes], name: str) -> None:
        self._plain = plain
        self._name = name
        self.left = _LARGEST_HEADERS

    def read(self, size: int = -1) -> bytes:
        data = self._plain.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnsafeArchive(
                f"{self._name} has headers that are larger than any real ones.",
                remedy="Do not trust the place it came from.",
            )
        return data


def _unpack_tar(measured: _Measured, writer: _Writer) -> None:
    with tarfile.open(
        fileobj=measured,  # type: ignore[call-overload]
        mode="r|", bufsize=20 * tarfile.BLOCKSIZE, errors="strict", encoding="utf-8",
    ) as archive:  # fmt: skip
        while True:
            measured.left = _LARGEST_HEADERS
            entry = archive.next()
            if entry is None:
                break
            # The archive keeps every entry it has seen, and nobody looks at them again.
            archive.members.clear()
            if entry.isdir():
                writer.directory(entry.name, entry.mode)
            elif entry.issym():
                writer.symlink(entry.name, entry.linkname)
            elif entry.islnk():
                writer.hardlink(entry.name, entry.linkname)
            elif entry.isreg() and not entry.issparse():
                content = archive.extractfile(entry)
                assert content is not None
                measured.left = _LARGEST_HEADERS + entry.size
                writer.file(entry.name, entry.mode, content, entry.size)
            else:
                raise writer.unsafe(entry.name, "is neither a file nor a folder nor a link")
    measured.left = _LARGEST_HEADERS
    while measured.read(_PIECE):
        pass  # only at its own end does a packed stream know that it is whole


def _unpack_zip(joined: JoinedFiles, writer: _Writer) -> None:
    with zipfile.ZipFile(joined) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if entry.flag_bits & 1:
                raise writer.unsafe(entry.filename, "is encrypted")
            if entry.compress_type not in _ZIP_METHODS:  # LZMA may ask for any amount of memory
                raise NotImplementedError(f"the entry '{entry.filename}' is packed in a rare way")
            if entry.orig_filename.partition("\0")[0] != entry.filename:
                raise writer.unsafe(entry.filename, "has two names")
            if entry.is_dir() and kind in (0, stat.S_IFDIR):
                writer.directory(entry.filename, mode or 0o755)
            elif kind == stat.S_IFLNK:
                if entry.file_size > _LONGEST_LINK:
                    raise writer.unsafe(entry.filename, "is a link to an endless name")
                with archive.open(entry) as content:
                    target = content.read(_LONGEST_LINK).decode("utf-8")
                writer.symlink(entry.filename, target)
            elif kind in (0, stat.S_IFREG) and not entry.is_dir():
                with archive.open(entry) as content:
                    writer.file(entry.filename, mode or 0o644, content, entry.file_size)
            else:
                raise writer.unsafe(entry.filename, "is neither a file nor a folder nor a link")


@dataclass(slots=True)
class _Writer:
    """Writes entries, each of them once and none outside."""

    archive: str
    root: Path
    limits: Limits
    joined: JoinedFiles
    files: list[UnpackedFile] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tell: Callable[[], None] = lambda: None
    _kinds: dict[str, str] = field(default_factory=dict)
    _modes: dict[str, int] = field(default_factory=dict)
    _written: int = 0

    def unsafe(self, entry: str, why: str) -> UnsafeArchive:
        """The error about an entry."""
        shown = entry.encode("ascii", "backslashreplace").decode()[:200]
        return UnsafeArchive(
            f"{self.archive}: the entry '{shown}' {why}; nothing of it was used.",
            remedy="Do not trust the place it came from.",
            facts={"entry": shown},
        )

    def directory(self, name: str, mode: int) -> None:
        path = self._path(name, may_be_root=True)
        if path:
            self._make_directory(path, name)
            self._modes[path] = (mode & 0o755) | 0o700
        self.tell()

    def file(self, name: str, mode: int, content: IO[bytes], size: int) -> None:
        path = self._new(name, "file")
        digest = hashlib.sha256()
        written = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(self.root / path, flags, 0o600)
        try:
            while piece := content.read(_PIECE):
                written += len(piece)
                self._count(name, len(piece))
                digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
                self.tell()
            os.fchmod(descriptor, (mode & 0o755) | 0o600)
        finally:
            os.close(descriptor)
        if written != size:
            raise EOFError(f"the entry '{name}' has {written} bytes instead of {size}")
        self.files.append(UnpackedFile(path, written, digest.hexdigest()))

    def symlink(self, name: str, target: str) -> None:
        path = self._new(name, "link")
        depth = len(PurePosixPath(path).parts) - 1
        if not target or "\0" in target or target.startswith("/"):
            raise self.unsafe(name, f"is a link to '{target[:200]}'")
        for part in PurePosixPath(target).parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                raise self.unsafe(name, f"is a link that leads out, to '{target[:200]}'")
        (self.root / path).symlink_to(target)
        self.links.append(path)

    def hardlink(self, name: str, target: str) -> None:
        original = self._path(target)
        if self._kinds.get(original) != "file":
            raise self.unsafe(
                name, f"is a second name of '{target[:200]}', which is no file of it"
            )
        path = self._new(name, "file")
        os.link(self.root / original, self.root / path, follow_symlinks=False)
        known = next(file for file in self.files if file.path == original)
        self.files.append(UnpackedFile(path, known.size_bytes, known.sha256))

    def finish(self) -> str:
        """Give folders their modes; the one folder that everything is in, if there is one."""
        if not self._kinds:
            raise SetupFailed(
                f"{self.archive} is empty.", remedy="The release is not as it should be."
            )
        for path, mode in self._modes.items():
            (self.root / path).chmod(mode)
        tops = {path.partition("/")[0] for path in self._kinds}
        if len(tops) > 1:
            return ""
        (top,) = tops
        return top if self._kinds[top] == "directory" and len(self._kinds) > 1 else ""

    def _new(self, name: str, kind: str) -> str:
        """The path of an entry that must not be there yet, with its folders made."""
        path = self._path(name)
        if path in self._kinds:
            raise self.unsafe(name, "is there twice")
        parent = path.rpartition("/")[0]
        if parent:
            self._make_directory(parent, name)
        self._remember(path, kind, name)
        return path

    def _make_directory(self, path: str, name: str) -> None:
        known = self._kinds.get(path)
        if known == "directory":
            return
        if known is not None:
            raise self.unsafe(name, f"would be written through the {known} '{path}'")
        parent = path.rpartition("/")[0]
        if parent:
            self._make_directory(parent, name)
        (self.root / path).mkdir(mode=0o755)
        self._remember(path, "directory", name)

    def _remember(self, path: str, kind: str, name: str) -> None:
        self._kinds[path] = kind
        if len(self._kinds) > self.limits.entries:
            raise self.unsafe(name, f"is more than the {self.limits.entries}th")

    def _path(self, name: str, *, may_be_root: bool = False) -> str:
        """The entry's place below the root."""
        if "\0" in name or name.startswith("/"):
            raise self.unsafe(name, "has a place of its own on the disk")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.unsafe(name, "leads out")
        if len(parts) > 100 or any(len(os.fsencode(part)) > 255 for part in parts):
            raise self.unsafe(name, "has an endless name")
        if not parts and not may_be_root:
            raise self.unsafe(name, "has no name")
        return "/".join(parts)

    def _count(self, name: str, size: int) -> None:
        self._written += size
        if self._written > self.limits.unpacked_bytes:
            raise self.unsafe(name, "is more than this disk can take")
        if (
            self._written > self.limits.ratio_from
            and self._written > self.limits.ratio * self.joined.size_bytes
        ):
            raise self.unsafe(name, f"makes it {self.limits.ratio} times as large as it was")


def _check_links(name: str, root: Path, links: Sequence[str], prefix: str) -> None:
    """Follow every link to its end: links through links may leave where one alone does not."""
    real = os.path.realpath(root)
    start = len(prefix) + 1 if prefix else 0
    for link in links:
        end = os.path.realpath(root / link[start:])
        if end != real and not end.startswith(f"{real}/"):
            raise UnsafeArchive(
                f"{name}: the entry '{link}' is a link that leads out; nothing of it was used.",
                remedy="Do not trust the place it came from.",
                facts={"entry": link},
            )


def unpacked_estimate(packed_bytes: int) -> int:
    """How much space an archive will take unpacked: engines shrink to a third or less."""
    return 4 * packed_bytes
