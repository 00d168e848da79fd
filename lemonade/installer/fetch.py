"""One file from a release host to this disk: continued where it ended, verified, or gone.

Bytes go into `NAME.partial`, whose directory belongs to us alone. Whatever happens, that file
holds the first bytes of the content or does not exist, and what is complete has been verified.
There is no limit of time: a transfer may take as long as it makes progress.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urljoin

import aiohttp

from lemonade.core.errors import ChecksumMismatch, DownloadFailed
from lemonade.core.records import dataclass
from lemonade.installer.growing import GrowingFile, Report
from lemonade.installer.hosts import ReleaseHosts, shown_url
from lemonade.installer.threads import finished

log = logging.getLogger(__name__)

T = TypeVar("T")

_PIECE: Final = 1 << 20
_WRITE_EVERY: Final = 0.25
_BUFFER: Final = 1 << 18
"""What a connection holds in advance, which is lost when it is cut."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
_MAY_PASS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST_ANSWER: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we put up with a host. Times are seconds.

    Attributes:
        retries: how often in a row it may fail without any progress in between.
        question_retries: how often a question may fail.
        first_pause: before the second try; doubled before each further one.
        longest_pause: the most that doubling, or the host, leads to.
        connect_within: until a connection stands.
        silent_within: until the next bytes come.
    """

    retries: int = 5
    question_retries: int = 2
    first_pause: float = 1.0
    longest_pause: float = 60.0
    connect_within: float = 30.0
    silent_within: float = 60.0

    def pause(self, failures: int, asked_for: float) -> float:
        """Before the next try; spread, so that not all who failed together come together."""
        wanted = max(asked_for, self.first_pause * 2 ** (failures - 1))
        return float(min(self.longest_pause, wanted)) * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What is to be fetched.

    Attributes:
        name: for people.
        size_bytes: 0 if nobody said.
        sha256: empty if nobody said.
        vouched_by: who did: `pinned`, `published` or `recorded`.
    """

    name: str
    url: str
    size_bytes: int = 0
    sha256: str = ""
    vouched_by: str = ""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """What was fetched."""

    path: Path
    size_bytes: int
    sha256: str


class _MayPass(Exception):
    """A failure after which it is worth trying again; `after` seconds, if the host said so."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Fetcher:
    """Talks to release hosts. `async with` it; connections are closed at the end."""

    def __init__(
        self, hosts: ReleaseHosts, environ: Mapping[str, str], patience: Patience
    ) -> None:
        self.hosts = hosts
        self._cafile = environ.get("SSL_CERT_FILE") or None
        self._patience = patience
        self._tls: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # Proxies are chosen here; trust_env would also send what stands in .netrc.
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_BUFFER,
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._patience.connect_within,
                sock_read=self._patience.silent_within,
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, url: str, what: str) -> bytes | None:
        """A small answer, whole; `None` if there is no such thing.

        Raises:
            DownloadFailed: the host does not answer, or refuses.
        """

        async def once() -> bytes | None:
            async with self._get(url, {}) as response:
                if response.status == 404:
                    return None
                _check_status(response, what)
                return await _small_body(response, what)

        return await self._patiently(once, what, self._patience.question_retries)

    async def ask_if_changed(self, url: str, what: str, etag: str) -> tuple[bytes | None, str]:
        """A small answer and the host's name for it; `None` if it is the one called `etag`.

        Raises:
            DownloadFailed: the host does not answer, refuses, or has no such thing.
        """

        async def once() -> tuple[bytes | None, str]:
            condition = {"If-None-Match": etag} if etag else {}
            async with self._get(url, condition) as response:
                if etag and response.status == 304:
                    return None, etag
                _check_status(response, what)
                return await _small_body(response, what), response.headers.get("ETag", "")

        return await self._patiently(once, what, self._patience.question_retries)

    async def size_of(self, url: str, what: str) -> int | None:
        """How large a file is, 0 if the host does not say; `None` if there is none.

        Raises:
            DownloadFailed: the host does not answer, or refuses.
        """

        async def once() -> int | None:
            async with self._get(url, {}, method="HEAD") as response:
                if response.status == 404:
                    return None
                _check_status(response, what)
                return response.content_length or 0

        return await self._patiently(once, what, self._patience.question_retries)

    async def fetch(self, wanted: RemoteFile, path: Path, report: Report) -> LocalFile:
        """Have the file at `path`, whole and verified; what is there of it is continued.

        Cancelled safely: what has come stays for the next time.

        Raises:
            ChecksumMismatch: it is not the one that was expected; nothing of it is kept.
            DownloadFailed: the host does not have it, refuses, or fails again and again.
            OSError: the disk failed.
        """
        problem = ""
        for again in (False, True):
            stream = GrowingFile(path, wanted.size_bytes, wanted.sha256, report)
            try:
                await asyncio.to_thread(stream.open)
                await self._fill(wanted, stream)
                problem = stream.problem()
                if not problem:
                    await asyncio.to_thread(stream.settle)
                    return LocalFile(path, stream.have, stream.digest())
            finally:
                await asyncio.to_thread(stream.close)
            stream.discard()
            if stream.previously and not again:
                # What was here before may be of another file: once from the beginning.
                log.info("%s was continued and is not right, it is fetched anew", wanted.name)
                continue
            break
        raise ChecksumMismatch(
            f"{wanted.name} is not the file that was expected: {problem}. It was thrown away.",
            remedy="Try again; if it stays so, do not trust that source.",
            facts={"file": wanted.name, "expected": wanted.sha256},
        )

    async def _fill(self, wanted: RemoteFile, stream: GrowingFile) -> None:
        async def once() -> None:
            if wanted.size_bytes and stream.have == wanted.size_bytes:
                return
            await self._continue(wanted, stream)

        await self._patiently(once, wanted.name, self._patience.retries, lambda: stream.most)

    async def _continue(self, wanted: RemoteFile, stream: GrowingFile) -> None:
        async with self._get(wanted.url, stream.range_headers()) as response:
            if response.status == 416:
                await asyncio.to_thread(stream.start_over)
                raise _MayPass("it has no such part")
            _check_status(response, wanted.name)
            total = await asyncio.to_thread(
                stream.take, response.status, response.headers, response.content_length
            )
            buffer: list[bytes] = []
            held, written = 0, 0.0
            try:
                async for piece in response.content.iter_any():
                    buffer.append(piece)
                    held += len(piece)
                    # A slow line is written more often, or nobody would see it move.
                    if held >= _PIECE or time.monotonic() - written >= _WRITE_EVERY:
                        full, buffer, held, written = buffer, [], 0, time.monotonic()
                        await finished(stream.write, full)
                        if stream.too_long():
                            return
            finally:
                if buffer:  # a line that was cut has brought something all the same
                    await finished(stream.write, buffer)
            if total and stream.have < total:
                raise _MayPass(f"it ended after {stream.have} of {total} bytes")

    async def _patiently(
        self,
        work: Callable[[], Awaitable[T]],
        what: str,
        retries: int,
        progress: Callable[[], int] = int,
    ) -> T:
        """Do the work, again if its failure may pass, as long as there is progress in between."""
        failures, best = 0, progress()
        while True:
            try:
                return await work()
            except (_MayPass, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorCertificateError):
                    raise _failed(what, error) from error
                now = progress()
                failures = 1 if now > best else failures + 1
                best = max(best, now)
                if failures > retries:
                    raise _failed(what, error) from error
                after = error.after if isinstance(error, _MayPass) else 0.0
                log.info("%s: %s; trying again", what, _why(error))
            await asyncio.sleep(self._patience.pause(failures, after))

    @asynccontextmanager
    async def _get(
        self, url: str, extra: Mapping[str, str], method: str = "GET"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and go where the answer leads; every step is checked and gets its own headers."""
        assert self._session is not None
        before = ""
        for _ in range(_MOST_REDIRECTS):
            self.hosts.check(url, after=before)
            headers = {**self.hosts.headers(url), **extra}
            _check_headers(headers, url)
            proxy = self.hosts.proxy(url)
            secured = any(at and at.startswith("https:") for at in (url, proxy))
            async with self._session.request(
                method,
                url,
                headers=headers,
                allow_redirects=False,
                proxy=proxy,
                ssl=await self._context() if secured else True,
            ) as response:
                where = response.headers.get("Location", "")
                if response.status not in _REDIRECTS or not where:
                    yield response
                    return
                before, url = url, _led_to(url, where)
        raise DownloadFailed(
            f"{shown_url(before)} leads from one address to the next without end.",
            remedy="Check LEMONADE_GITHUB_URL.",
        )

    async def _context(self) -> ssl.SSLContext:
        """The certificates this machine trusts, read once."""
        if self._tls is None:
            try:
                self._tls = await asyncio.to_thread(
                    ssl.create_default_context, cafile=self._cafile
                )
            except (OSError, ssl.SSLError) as error:
                raise DownloadFailed(
                    f"The certificates in {self._cafile} cannot be read: {error}.",
                    remedy="Correct SSL_CERT_FILE.",
                ) from error
        return self._tls


def _check_headers(headers: Mapping[str, str], url: str) -> None:
    """A line break in what the environment says would be a header of its own."""
    for name, value in headers.items():
        if not value.isprintable():
            raise DownloadFailed(
                f"{shown_url(url)} is not asked: the header {name} would not be one line of text.",
                remedy="Check GITHUB_TOKEN.",
            )


def _led_to(url: str, where: str) -> str:
    """Where an answer leads, which may be said in part only."""
    try:
        return urljoin(url, where)
    except ValueError:
        return where  # it is no address; whoever checks it says so


async def _small_body(response: aiohttp.ClientResponse, what: str) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _LARGEST_ANSWER:
            raise DownloadFailed(
                f"The answer about {what} is far too long.",
                remedy="Check LEMONADE_GITHUB_API_URL.",
            )
    return bytes(body)


def _check_status(response: aiohttp.ClientResponse, what: str) -> None:
    """Go on only with content.

    Raises:
        _MayPass: it is worth asking again.
        DownloadFailed: it is not.
    """
    status = response.status
    if status in (200, 206):
        return
    limited = status == 403 and response.headers.get("X-RateLimit-Remaining") == "0"
    if status in _MAY_PASS:
        raise _MayPass(f"the host answers {status}", _retry_after(response.headers))
    host = response.url.host
    if status == 404:
        raise DownloadFailed(
            f"{host} has no {what}.",
            remedy="The release may have been taken back, or the mirror may not have it.",
            facts={"status": status},
        )
    raise DownloadFailed(
        f"{host} refuses {what} with status {status}.",
        remedy="It counts requests: set GITHUB_TOKEN, or wait an hour."
        if limited
        else "Check GITHUB_TOKEN, and who may read that repository.",
        facts={"status": status},
    )


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds the host asks us to wait; 0 if it does not say."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _failed(what: str, error: Exception) -> DownloadFailed:
    remedy = (
        "Check network and proxy, or name a mirror in LEMONADE_GITHUB_URL and "
        "LEMONADE_GITHUB_API_URL; what has come so far is kept."
    )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        remedy = "Name the certificates to trust in SSL_CERT_FILE."
    return DownloadFailed(
        f"{what} could not be fetched: {_why(error)}.",
        remedy=remedy,
        facts={"reason": _why(error)},
    )


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came any more"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.host} cannot be reached ({error.os_error.strerror or error.os_error})"
    return (str(error) or type(error).__name__).rstrip(".")
