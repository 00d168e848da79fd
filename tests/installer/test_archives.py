"""What an archive may hold, and every trick we know to make it write where it must not."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lemonade.core.errors import SetupFailed, UnsafeArchive
from lemonade.installer.archive import unpack
from lemonade.installer.unpacked import Limits, UnpackedFile

LIMITS = Limits(unpacked_bytes=50 << 20, ratio=20, ratio_from=1 << 20, entries=100)

Entry = tuple[str, bytes | str, dict[str, object]]


def tar_of(path: Path, *entries: Entry) -> Path:
    """A gzipped tar of entries: a name, content or link, and attributes of its header."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content, attributes in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            for key, value in attributes.items():
                setattr(info, key, value)
            if isinstance(content, str):
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x", **attributes: object) -> Entry:
    return name, content, attributes


def link(name: str, target: str) -> Entry:
    return name, target, {"type": tarfile.SYMTYPE}


def hard(name: str, target: str) -> Entry:
    return name, target, {"type": tarfile.LNKTYPE}


def folder(name: str, mode: int = 0o755) -> Entry:
    return name, b"", {"type": tarfile.DIRTYPE, "mode": mode}


def special(name: str, kind: bytes) -> Entry:
    return name, b"", {"type": kind}


def opened(
    path: Path, into: Path, limits: Limits = LIMITS, *more: Path
) -> dict[str, UnpackedFile]:
    files = unpack(path.name, (path, *more), into, limits, lambda *_: None)
    return {one.path: one for one in files}


HOSTILE: dict[str, list[Entry]] = {
    "absolute": [file("/etc/evil")],
    "parent": [file("../evil")],
    "parent in the middle": [file("a/../../evil")],
    "parent that stays inside": [file("a/../b")],
    "double slash": [file("//evil")],
    "absolute folder": [folder("/evil")],
    "link to elsewhere": [link("a", "/etc/passwd")],
    "link that leads out": [link("a/b", "../../evil")],
    "link to nothing": [link("a", "")],
    "through a link": [folder("d"), link("a", "d"), file("a/evil")],
    "folder over a link": [folder("d"), link("a", "d"), folder("a")],
    "file over a link": [folder("d"), link("a", "d/x"), file("a")],
    "link over a file": [file("a"), link("a", "b")],
    "file under a file": [file("a"), file("a/b")],
    "twice": [file("a"), file("a")],
    "twice by another spelling": [file("a/b"), file("./a//b")],
    "folder over a file": [file("a"), folder("a")],
    "file over a folder": [folder("a"), file("a")],
    "links through links": [
        file("a/b/c/x"), link("a/b/c/up", "../../.."), link("out", "a/b/c/up/../../evil"),
    ],
    "hard link out": [hard("a", "../../etc/passwd")],
    "hard link to elsewhere": [hard("a", "/etc/passwd")],
    "hard link to a link": [link("l", "x"), hard("a", "l")],
    "hard link to what is not in it": [hard("a", "b"), file("b")],
    "device": [special("a", tarfile.CHRTYPE)],
    "block device": [special("a", tarfile.BLKTYPE)],
    "fifo": [special("a", tarfile.FIFOTYPE)],
    "unknown kind": [special("a", b"Z")],
    "no name": [file("./")],
    "endless name": [file("x" * 300)],
    "endless path": [file("/".join("x" * 150))],
    "bomb": [file("a", bytes(30 << 20))],
    "more than the disk": [file(str(n), os.urandom(9 << 20)) for n in range(6)],
    "too many": [file(str(n)) for n in range(101)],
    "endless headers": [file("a", pax_headers={"comment": "x" * (8 << 20)})],
}  # fmt: skip


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives(tmp_path: Path, entries: list[Entry]) -> None:
    path = tar_of(tmp_path / "bad.tar.gz", file("good/first"), *entries)
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(UnsafeArchive, match=r"bad\.tar\.gz") as caught:
        opened(path, home / "tree")
    assert caught.value.remedy
    assert {p.name for p in tmp_path.iterdir()} == {"bad.tar.gz", "home"}
    assert not list(tmp_path.rglob("evil"))
    assert Path("/etc/passwd").stat().st_nlink == 1
    assert not Path("/etc/evil").exists()


def test_an_honest_archive(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "good.tar.gz",
        folder("top", 0o700),
        file("top/bin/run", b"#!", mode=0o6777),
        file("top/lib/libx.so.1.2", b"lib", mode=0o444),
        link("top/lib/libx.so.1", "libx.so.1.2"),
        link("top/lib/libx.so", "libx.so.1"),
        link("top/bin/data", "../share"),
        hard("top/bin/again", "top/bin/run"),
        file("top/share/text", b"text", mode=0o200),
        link("top/dangling", "share/missing"),
    )
    files = opened(path, tmp_path / "tree")
    assert set(files) == {"bin/run", "lib/libx.so.1.2", "bin/again", "share/text"}
    tree = tmp_path / "tree"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.tar.gz", "tree"]
    assert stat.S_IMODE((tree / "bin/run").stat().st_mode) == 0o755, "no set-uid, not for others"
    assert stat.S_IMODE((tree / "lib/libx.so.1.2").stat().st_mode) == 0o644
    assert (tree / "lib/libx.so").read_bytes() == b"lib"
    assert (tree / "bin/data/text").read_bytes() == b"text"
    assert (tree / "bin/again").read_bytes() == b"#!"
    assert files["bin/again"].sha256 == files["bin/run"].sha256


def test_a_top_that_is_not_shared_stays(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", file("top/x"), file("y"))
    assert set(opened(path, tmp_path / "tree")) == {"top/x", "y"}
    path = tar_of(tmp_path / "b.tar.gz", file("run"))
    assert set(opened(path, tmp_path / "other")) == {"run"}


def test_a_link_that_needs_the_top(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", file("top/x"), link("top/y", "../top/x"))
    with pytest.raises(UnsafeArchive, match="leads out"):
        opened(path, tmp_path / "tree")


def test_parts_are_one_archive(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "w.tar.gz", file("a", os.urandom(100_000)), file("b")).read_bytes()
    parts = []
    for number, cut in enumerate((whole[:7], b"", whole[7:50_000], whole[50_000:])):
        parts.append(tmp_path / f"part{number}")
        parts[-1].write_bytes(cut)
    seen: list[tuple[int, int]] = []
    unpack("w.tar.gz", parts, tmp_path / "t", LIMITS, lambda *now: seen.append(now))
    assert seen[-1] == (len(whole), len(whole))
    assert seen == sorted(seen)


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz", ".tar.bz2", ".zip"])
@pytest.mark.parametrize("damage", ["cut", "turned", "other"])
def test_damaged_archives(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"a{ending}"
    data = os.urandom(50_000)
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a", data)
    else:
        with tarfile.open(path, f"w:{ending[5:]}") as tar:
            info = tarfile.TarInfo("a")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "turned": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "other": b"<!DOCTYPE html>" * 100,
        }[damage]
    )
    with pytest.raises(SetupFailed, match="cannot be unpacked"):
        opened(path, tmp_path / "tree")


def test_a_tar_that_ends_inside_a_file(tmp_path: Path) -> None:
    plain = gzip.decompress(tar_of(tmp_path / "a.tar.gz", file("a", bytes(5000))).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(plain[:2000]))
    with pytest.raises(SetupFailed, match="cannot be unpacked"):
        opened(tmp_path / "a.tar.gz", tmp_path / "tree")


def zip_of(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = mode << 16 or 0x20  # as DOS has it
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", b"x", 0o644)],
        [("/evil", b"x", 0o644)],
        [("a", b"/etc/passwd", stat.S_IFLNK | 0o777)],
        [("a", b"../evil", stat.S_IFLNK | 0o777)],
        [("a", b"x" * 5000, stat.S_IFLNK | 0o777)],
        [("d/x", b"", 0o644), ("a", b"d", stat.S_IFLNK | 0o777), ("a/evil", b"x", 0o644)],
        [("a", b"", stat.S_IFIFO | 0o644)],
        [("a", b"", stat.S_IFCHR | 0o644)],
        [("a", b"x", 0o644), ("a", b"y", 0o644)],
        [("a/", b"content", stat.S_IFREG | 0o644)],
        [("a", bytes(30 << 20), 0o644)],
    ],
    ids=lambda entries: entries[-1][0],
)
def test_hostile_zips(tmp_path: Path, entries: list[tuple[str, bytes, int]]) -> None:
    path = zip_of(tmp_path / "bad.zip", ("good", b"x", 0o644), *entries)
    with pytest.raises(UnsafeArchive):
        opened(path, tmp_path / "tree")
    assert not list(tmp_path.rglob("evil"))


def test_an_honest_zip(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "good.zip",
        ("top/", b"", stat.S_IFDIR | 0o755),
        ("top/run", b"#!", stat.S_IFREG | 0o755),
        ("top/dos", b"text", 0),
        ("top/link", b"run", stat.S_IFLNK | 0o777),
    )
    assert set(opened(path, tmp_path / "tree")) == {"run", "dos"}
    assert stat.S_IMODE((tmp_path / "tree/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "tree/dos").stat().st_mode) == 0o644
    assert (tmp_path / "tree/link").read_bytes() == b"#!"


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", ("a", b"x", 0o644))
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        opened(path, tmp_path / "tree")


def test_unpacking_can_be_stopped(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", *(file(str(n)) for n in range(50)))

    class Enough(Exception):
        pass

    def stop(*_: int) -> None:
        raise Enough

    report: Callable[[int, int], None] = stop
    with pytest.raises(Enough):
        unpack("a.tar.gz", [path], tmp_path / "tree", LIMITS, report)
    assert not (tmp_path / "tree").exists()


def needing(path: Path, exponent: int) -> Path:
    """A real .tar.xz whose header says that it needs a dictionary of 2 ** exponent bytes."""
    with tarfile.open(path, "w:xz") as archive:
        info = tarfile.TarInfo("a")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    data = bytearray(path.read_bytes())
    size, flags, kind, length = data[12:16]
    assert (size, flags, kind, length) == (2, 0, 0x21, 1), "one block, packed with LZMA2"
    data[16] = 2 * (exponent - 12)
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("exponent", "fits"), [(24, True), (27, True), (30, False), (31, False)])
def test_a_dictionary_that_takes_too_much_memory(
    tmp_path: Path, exponent: int, *, fits: bool
) -> None:
    path = needing(tmp_path / "a.tar.xz", exponent)
    if fits:
        assert [file.path for file in unpacked(path, tmp_path / "out")] == ["a"]
        return
    with pytest.raises(UnsafeArchive, match="more than 268 MB of memory") as caught:
        unpacked(path, tmp_path / "out")
    assert caught.value.remedy


def test_xz_in_several_streams(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "a.tar.gz", file("a", b"1" * 5000), file("b", b"2" * 5000))
    plain = gzip.decompress(whole.read_bytes())
    path = tmp_path / "b.tar.xz"
    path.write_bytes(lzma.compress(plain[:7000]) + bytes(8) + lzma.compress(plain[7000:]))
    assert sorted(file.path for file in unpacked(path, tmp_path / "out")) == ["a", "b"]


@pytest.mark.parametrize("end", [b"and something else", b"\0\0\0", lzma.compress(b"x")[:-8]])
def test_xz_with_a_strange_end(tmp_path: Path, end: bytes) -> None:
    whole = tar_of(tmp_path / "a.tar.gz", file("a"))
    path = tmp_path / "b.tar.xz"
    path.write_bytes(lzma.compress(gzip.decompress(whole.read_bytes())) + end)
    with pytest.raises(SetupFailed, match="cannot be unpacked"):
        unpacked(path, tmp_path / "out")


def test_a_zip_packed_in_a_rare_way(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"hello")
    with pytest.raises(SetupFailed, match="packed in a rare way"):
        unpacked(tmp_path / "a.zip", tmp_path / "out")


def unpacked(path: Path, into: Path) -> tuple[UnpackedFile, ...]:
    return unpack(path.name, [path], into, LIMITS, lambda *_: None)
