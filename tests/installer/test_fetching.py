"""One file from a host: continued, tried again, given up, and never of a wrong kind."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.core.errors import ChecksumMismatch, DownloadFailed
from lemonade.installer.fetch import Fetcher, LocalFile, Patience, RemoteFile
from lemonade.installer.hosts import ReleaseHosts
from tests.programs.release_server import Releases, serving

QUICK = Patience(retries=2, first_pause=0.0)
DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    file = tmp_path / "releases" / "o" / "n" / "v" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    with serving(tmp_path / "releases") as host:
        yield host


class Fetching:
    """A fetcher and where it puts the file."""

    def __init__(self, releases: Releases, path: Path) -> None:
        self.releases = releases
        self.path = path
        self.reports: list[tuple[int, int, int]] = []

    async def fetch(self, sha256: str = SHA256, size: int = len(DATA)) -> LocalFile:
        url = f"{self.releases.url}/storage/o/n/v/file"
        async with Fetcher(ReleaseHosts.from_environ({}), {}, QUICK) as fetcher:
            return await fetcher.fetch(
                RemoteFile("file", url, size, sha256),
                self.path,
                lambda *now: self.reports.append(now),
            )

    def ranges(self) -> list[str]:
        return [one["range"] for one in self.releases.seen]


@pytest.fixture
def fetching(releases: Releases, tmp_path: Path) -> Fetching:
    return Fetching(releases, tmp_path / "file.partial")


async def test_a_file(fetching: Fetching) -> None:
    local = await fetching.fetch()
    assert local == LocalFile(fetching.path, len(DATA), SHA256)
    assert fetching.path.read_bytes() == DATA
    assert fetching.path.stat().st_mode & 0o777 == 0o600
    assert fetching.reports[-1] == (len(DATA), len(DATA), 0)


async def test_nothing_is_known_of_it(fetching: Fetching) -> None:
    assert (await fetching.fetch("", 0)).sha256 == SHA256


async def test_the_beginning_is_here(fetching: Fetching) -> None:
    fetching.path.write_bytes(DATA[:1000])
    assert (await fetching.fetch()).sha256 == SHA256
    assert fetching.ranges() == ["bytes=1000-"]
    assert fetching.reports[-1] == (len(DATA), len(DATA), 1000)


async def test_all_of_it_is_here(fetching: Fetching) -> None:
    fetching.path.write_bytes(DATA)
    assert (await fetching.fetch()).sha256 == SHA256
    assert fetching.ranges() == []
    fetching.path.write_bytes(DATA)
    assert (await fetching.fetch(size=0)).sha256 == SHA256, "the host says that no more is to come"


async def test_the_beginning_of_another_file(fetching: Fetching) -> None:
    fetching.path.write_bytes(b"x" * 1000)
    assert (await fetching.fetch()).sha256 == SHA256
    assert fetching.ranges() == ["bytes=1000-", ""], "once from the beginning"


async def test_a_beginning_nobody_can_check(fetching: Fetching) -> None:
    fetching.path.write_bytes(b"x" * 1000)
    assert (await fetching.fetch("", 0)).sha256 == SHA256
    assert fetching.ranges() == [""]


async def test_the_host_has_another_file_now(fetching: Fetching) -> None:
    fetching.path.write_bytes(DATA[:1000])
    fetching.path.with_name("file.partial.etag").write_text('"another"')
    assert (await fetching.fetch("", 0)).sha256 == SHA256
    assert fetching.path.read_bytes() == DATA


async def test_more_than_there_can_be(fetching: Fetching) -> None:
    fetching.path.write_bytes(DATA + b"x")
    assert (await fetching.fetch()).sha256 == SHA256
    with pytest.raises(ChecksumMismatch, match="instead of 100"):
        await fetching.fetch(size=100)
    assert not fetching.path.exists()


async def test_less_than_there_should_be(fetching: Fetching) -> None:
    with pytest.raises(ChecksumMismatch, match="instead of"):
        await fetching.fetch("", len(DATA) + 1)


async def test_a_link_is_not_followed(fetching: Fetching, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    fetching.path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"symbolic|Too many"):
        await fetching.fetch()
    assert (tmp_path / "victim").read_bytes() == b"precious"


async def test_patience_ends(fetching: Fetching) -> None:
    fetching.releases.faults = {"file": [["status:503", -1]]}
    with pytest.raises(DownloadFailed, match="answers 503"):
        await fetching.fetch()
    assert len(fetching.ranges()) == 1 + QUICK.retries


async def test_a_line_that_is_cut_again_and_again_without_ranges(fetching: Fetching) -> None:
    fetching.releases.faults = {"file": [["cut", -1]]}
    with pytest.raises(DownloadFailed):
        await fetching.fetch("", 0)


async def test_cancelled_in_a_pause(releases: Releases, tmp_path: Path) -> None:
    releases.faults = {"file": [["status:429", -1]]}
    slow = Patience(first_pause=3600.0, longest_pause=3600.0)
    async with Fetcher(ReleaseHosts.from_environ({}), {}, slow) as fetcher:
        async with asyncio.TaskGroup() as group:
            file = RemoteFile("file", f"{releases.url}/storage/o/n/v/file")
            task = group.create_task(
                fetcher.fetch(file, tmp_path / "file.partial", lambda *_: None)
            )
            while not releases.seen:
                await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="nobody makes a certificate")
async def test_certificates(releases: Releases, tmp_path: Path) -> None:
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *pair, "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(releases.folder, tls=tls) as secure:
        url = f"{secure.url.replace('127.0.0.1', 'localhost')}/storage/o/n/v/file"
        known = {"SSL_CERT_FILE": str(tmp_path / "cert.pem")}
        async with Fetcher(ReleaseHosts.from_environ({}), known, QUICK) as fetcher:
            assert await fetcher.ask(url, "file") == DATA
        async with Fetcher(ReleaseHosts.from_environ({}), {}, QUICK) as fetcher:
            with pytest.raises(DownloadFailed, match="certificate verify failed") as caught:
                await fetcher.ask(url, "file")
        assert "SSL_CERT_FILE" in caught.value.remedy


async def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    environ = {"SSL_CERT_FILE": str(tmp_path / "none.pem")}
    async with Fetcher(ReleaseHosts.from_environ(environ), environ, QUICK) as fetcher:
        with pytest.raises(DownloadFailed, match=r"none\.pem cannot be read") as caught:
            await fetcher.ask("https://127.0.0.1:9/", "a list")
    assert "SSL_CERT_FILE" in caught.value.remedy


async def test_what_would_break_a_request_is_not_sent(releases: Releases, tmp_path: Path) -> None:
    path = tmp_path / "file.partial"
    path.write_bytes(DATA[:1000])
    path.with_name("file.partial.etag").write_bytes(b'"x"\r\nX-Evil: 1')
    assert (await Fetching(releases, path).fetch("", 0)).sha256 == SHA256
    hosts = ReleaseHosts.from_environ({**releases.environ, "GITHUB_TOKEN": "one\ntwo"})
    async with Fetcher(hosts, {}, QUICK) as fetcher:
        with pytest.raises(DownloadFailed, match="Authorization would not be one line") as caught:
            await fetcher.ask(f"{releases.url}/api/x", "x")
    assert "GITHUB_TOKEN" in caught.value.remedy
