"""Who may talk to the server: keys for programs, origins for web pages. Pure decisions."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Final, Literal, Self

from lemonade.core.records import dataclass

Level = Literal["open", "regular", "admin"]
"""What a route demands. `open` demands nothing."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?\Z")
_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_ANYTHING: Final = "*"
_NO_ORIGIN: Final = "null"


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """The server's secrets, read once at start. An empty key opens what it guards.

    Attributes:
        api_key: for the regular routes.
        admin_key: for the internal routes; accepted everywhere.
        admin_key_given: whether the admin key is one of its own, not the regular key standing in.
        allowed_origins: as LEMONADE_ALLOWED_ORIGINS has it.
    """

    api_key: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)
    admin_key_given: bool = False
    allowed_origins: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the keys; an admin key that is not set at all is the regular key."""
        api_key = _key(environ.get("LEMONADE_API_KEY", ""))
        admin_key = environ.get("LEMONADE_ADMIN_API_KEY")
        return cls(
            api_key=api_key,
            admin_key=api_key if admin_key is None else _key(admin_key),
            admin_key_given=bool(admin_key),
            allowed_origins=environ.get("LEMONADE_ALLOWED_ORIGINS", ""),
        )

    def admits(self, level: Level, authorization: str | None) -> bool:
        """Whether a request with this `Authorization` header may pass."""
        keys: tuple[str, ...] = ()
        if level == "regular" and self.api_key:
            keys = (self.api_key, self.admin_key)
        elif level == "admin" and self.admin_key:
            keys = (self.admin_key,)
        given = bearer(authorization)
        return not keys or any(key and _same(given, key) for key in keys)

    def allows_origin(self, origin: str) -> bool:
        """Whether a web page of this origin may talk to us."""
        return origin_allowed(origin, self.allowed_origins)


def _key(given: str) -> str:
    """Without the blanks around it, which no header has. Nothing but blanks opens nothing."""
    return given.strip() or given


def bearer(authorization: str | None) -> str:
    """The key in an `Authorization` header; empty if there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def origin_allowed(origin: str, allowed: str) -> bool:
    """Whether a page of `origin` may talk to the server.

    This machine's own pages and desktop applications always may. Others must be listed.

    Args:
        origin: the `Origin` header.
        allowed: origins separated by commas, or `*`. Entries without a scheme do not count.
    """
    entries = [entry.strip() for entry in allowed.split(",")]
    anything = _ANYTHING in entries
    if origin == _NO_ORIGIN:
        return anything or _NO_ORIGIN in entries
    asked = _parse(origin)
    if asked is None:
        return False
    scheme, host, _ = asked
    if scheme not in _PORTS or _is_loopback(host) or anything:
        return True
    return asked in [_parse(entry.removesuffix("/")) for entry in entries]


def _parse(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and effective port; `None` if it is no origin as browsers write it."""
    match = _SCHEME.match(origin)
    # Browsers write names in their ASCII form; whatever passes here goes into a header again.
    if match is None or not all("!" <= character <= "~" for character in origin):
        return None
    scheme, rest = match[1].lower(), match[2]
    if scheme not in _PORTS:
        return scheme, rest, 0  # a desktop application's; what it calls its host is its business
    authority = _AUTHORITY.match(rest)  # no user, path, query or fragment fits in there
    if authority is None:
        return None
    host = _host(authority[1])
    port = int(authority[2]) if authority[2] else _PORTS[scheme]
    return (scheme, host, port) if host and 0 < port < 65536 else None


def _host(written: str) -> str:
    """The host in one spelling; empty if it is none."""
    if written.startswith("["):
        try:
            return str(ipaddress.IPv6Address(written[1:-1]))
        except ValueError:
            return ""
    host = written.lower()
    return "" if "" in host.split(".") else host


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")


def _same(one: str, other: str) -> bool:
    """Compare in constant time, whatever characters there are."""
    return hmac.compare_digest(
        one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape")
    )
