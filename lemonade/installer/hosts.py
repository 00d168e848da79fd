"""Where releases are, whom we may talk to in clear text, and who is given the token.

The one place that names the public hosts. Pure but for the environment that is handed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

from lemonade.core.errors import DownloadFailed
from lemonade.core.records import dataclass

PUBLIC_RELEASES: Final = "https://github.com"
PUBLIC_API: Final = "https://api.github.com"

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ReleaseHosts:
    """The two hosts of releases, and the rules for every request.

    Attributes:
        releases: base of the addresses of files.
        api: base of the questions about releases.
        token: for these two alone; may be empty.
        plain: hosts that may be asked without encryption, loopback aside.
        proxies: by scheme, and `no` for those that are asked directly.
    """

    releases: str
    api: str
    token: str
    plain: frozenset[str]
    proxies: Mapping[str, str]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """As the environment says; nothing is checked yet."""
        plain = environ.get("LEMONADE_ALLOW_HTTP", "").split(",")
        return cls(
            releases=(environ.get("LEMONADE_GITHUB_URL") or PUBLIC_RELEASES).rstrip("/"),
            api=(environ.get("LEMONADE_GITHUB_API_URL") or PUBLIC_API).rstrip("/"),
            token=environ.get("GITHUB_TOKEN", "").strip(),
            plain=frozenset(host.strip().lower() for host in plain if host.strip()),
            proxies=_proxies(environ),
        )

    def file_url(self, path: str) -> str:
        """The address of `owner/name/releases/download/TAG/FILE`."""
        return f"{self.releases}/{quote(path)}"

    def release_url(self, repository: str, tag: str) -> str:
        """Where to ask what a release consists of."""
        return f"{self.api}/repos/{repository}/releases/tags/{quote(tag, safe='')}"

    def releases_url(self, repository: str, most: int) -> str:
        """Where to ask for the newest releases."""
        return f"{self.api}/repos/{repository}/releases?per_page={most}"

    def check(self, url: str, *, after: str = "") -> None:
        """Refuse an address that must not be asked; `after` is the one that led to it.

        Raises:
            DownloadFailed: it is none, or neither https nor of a host that may be asked plainly.
        """
        parts = read_address(url)
        host = (parts.hostname or "").lower()
        if after and urlsplit(after).scheme == "https" and parts.scheme != "https":
            raise DownloadFailed(
                f"{shown_url(after)} leads to {shown_url(url)}, which is not encrypted.",
                remedy="That is never followed: whoever is on the way could change the file.",
            )
        allowed = parts.scheme == "http" and (is_loopback(host) or host in self.plain)
        if not host or (parts.scheme != "https" and not allowed):
            raise DownloadFailed(
                f"{shown_url(url)} is not fetched from: it is not encrypted.",
                remedy=f"Use https, or allow it with LEMONADE_ALLOW_HTTP={host or 'HOST'}.",
            )

    def headers(self, url: str) -> dict[str, str]:
        """What goes with a request to that address."""
        headers = {"User-Agent": "lemonade", "Accept-Encoding": "identity"}
        known = {_origin(self.releases), _origin(self.api)}
        safe = url.startswith("https:") or is_loopback(urlsplit(url).hostname or "")
        if self.token and safe and _origin(url) in known:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def proxy(self, url: str) -> str | None:
        """The proxy to go through; none for this machine itself."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if is_loopback(host) or _bypassed(host.lower(), self.proxies.get("no", "")):
            return None
        return self.proxies.get(parts.scheme)


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_address(url: str) -> SplitResult:
    """Its parts, of which port and host can be what they are said to be.

    Raises:
        DownloadFailed: it is no address at all. What it says may be secret, so it is not shown.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")  # both say so only when asked
    except ValueError as error:
        raise DownloadFailed(
            f"The address of what is to be fetched is none: {error}.",
            remedy="It must be https://HOST/.../FILE, with a number for a port; check what was "
            "named, LEMONADE_GITHUB_URL and LEMONADE_GITHUB_API_URL.",
        ) from error
    return parts


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = read_address(url)
    except DownloadFailed:
        return "", "", 0  # nobody's
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def shown_url(url: str) -> str:
    """Without what is signed or secret in it."""
    parts = read_address(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _bypassed(host: str, names: str) -> bool:
    """Whether `no_proxy` has the host or a domain it is in."""
    listed = [name.strip().lower().lstrip(".") for name in names.split(",")]
    return any(n == "*" or host == n or (n and host.endswith(f".{n}")) for n in listed)


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for scheme, name in (("http", "http_proxy"), ("https", "https_proxy"), ("no", "no_proxy")):
        # Curl's rule: HTTP_PROXY in capitals may be a client's header in a CGI program.
        value = environ.get(name) or ("" if scheme == "http" else environ.get(name.upper(), ""))
        if value:
            found[scheme] = value
    return found
