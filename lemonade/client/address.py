"""Where the server is, from flags and the environment; and the key to show it.

Pure: no socket is opened and no name is looked up. `LEMONADE_HOST` and `--host` may hold a whole
URL, so that one variable is enough to point every command at another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from lemonade.core.errors import BadSetting
from lemonade.core.records import dataclass

DEFAULT_PORT: Final = 13305

_LOOPBACK: Final = "127.0.0.1"
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "localhost"})  # noqa: S104 - connected to, not bound
_SCHEME_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A server to talk to.

    Attributes:
        scheme: `http` or `https`.
        host: a name or an address; IPv6 without brackets.
        port: 1 to 65535.
        explicit: whether somebody chose host or port, rather than taking the default.
    """

    scheme: str
    host: str
    port: int
    explicit: bool = False

    @property
    def url(self) -> str:
        """`http://127.0.0.1:13305`, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_this_machine(self) -> bool:
        """Whether a server started here could be the one that answers there."""
        return self.scheme == "http" and (self.host.startswith("127.") or self.host == "::1")


def resolve_address(host: str | None, port: int | None, environ: Mapping[str, str]) -> Address:
    """The address that flags (first) and environment name.

    A port inside a URL wins over `port`. A URL without one means 80 or 443, unless a port was
    given. An empty host, `0.0.0.0` and `localhost` mean 127.0.0.1.

    Raises:
        BadSetting: a port is not one, or a URL has another scheme than http and https.
    """
    if port is None and (text := environ.get("LEMONADE_PORT")):
        port = _port(text, "LEMONADE_PORT")
    if host is None:
        host = environ.get("LEMONADE_HOST") or None
    explicit = host is not None or port is not None
    scheme, name, inside = _take_apart(host or "")
    if name == "::":
        name = "::1"
    if name in _ANY_ADDRESS:
        name = _LOOPBACK
    if inside is None:
        given_scheme = host is not None and "://" in host
        inside = port or (_SCHEME_PORTS[scheme] if given_scheme else DEFAULT_PORT)
    return Address(scheme, name, inside, explicit)


def resolve_key(key: str | None, environ: Mapping[str, str]) -> str:
    """The key to send; empty for none.

    A non-empty `LEMONADE_ADMIN_API_KEY` opens everything and therefore wins, then what was given,
    then `LEMONADE_API_KEY`.
    """
    return (
        environ.get("LEMONADE_ADMIN_API_KEY")
        or (key if key is not None else environ.get("LEMONADE_API_KEY"))
        or ""
    )


def _take_apart(text: str) -> tuple[str, str, int | None]:
    """Scheme, host and the port inside, if any."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    scheme = scheme.lower()
    if scheme not in _SCHEME_PORTS:
        raise BadSetting(
            f"'{text}' is not an address of a server: {scheme}:// is not spoken here.",
            remedy="Write a host, http://HOST:PORT or https://HOST:PORT.",
        )
    if rest.count(":") > 1 and not rest.startswith("["):
        # A bare IPv6 address: its colons are not a port's.
        return scheme, rest.partition("/")[0], None
    try:
        parts = urlsplit(f"//{rest}")
        return scheme, (parts.hostname or ""), parts.port
    except ValueError as error:
        raise BadSetting(
            f"'{text}' is not an address of a server: {error}.",
            remedy="Write a host, http://HOST:PORT or https://HOST:PORT.",
        ) from error


def _port(text: str, origin: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise BadSetting(f"{origin} is '{text}'.", remedy="A port is a number from 1 to 65535.")
