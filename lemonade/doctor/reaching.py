"""One question to one host, over a proxy if there is one: does anybody answer, and with what?

Plain `http.client`, since what fails is the answer here: the name, the connection, the
certificate, the silence. Nothing is retried and no redirect is followed.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from lemonade.core.records import dataclass

_MOST: Final = 65536
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask, and how.

    Attributes:
        url: http or https.
        headers: to send; they may hold a token.
        proxy: URL of the proxy to go through; `None` for none.
        cafile: certificates to trust instead of this machine's; empty for those.
        within: seconds for the connection, and again for each piece of the answer.
    """

    url: str
    headers: Mapping[str, str]
    proxy: str | None = None
    cafile: str = ""
    within: float = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said; `headers` are by small name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoWay(Exception):
    """There is no answer.

    Attributes:
        rule: why, for programs: `no-name`, `refused`, `silent`, `certificate`, `proxy`, `broken`.
        reason: the same for people, as the end of a sentence.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def ask_host(question: Question) -> Answer:
    """Ask once. Blocks; looking up the name has the system's own time limit.

    Raises:
        NoWay: there is no answer.
    """
    try:
        return _ask(question)
    except ssl.SSLCertVerificationError as error:
        raise NoWay("certificate", f"its certificate is not trusted: {error.reason}") from error
    except (TimeoutError, ConnectionResetError) as error:
        raise NoWay("silent", f"it does not answer within {question.within:g} seconds") from error
    except socket.gaierror as error:
        raise NoWay("no-name", f"its name is not known: {error.strerror or error}") from error
    except ssl.SSLError as error:
        raise NoWay("certificate", f"it speaks no TLS that we do: {error.reason}") from error
    except OSError as error:
        # http.client says so when a proxy does not let us through
        rule = "proxy" if str(error).startswith("Tunnel") else "refused"
        raise NoWay(rule, str(error.strerror or error)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise NoWay("broken", f"what it says is not HTTP: {type(error).__name__}") from error


def _ask(question: Question) -> Answer:
    parts = urlsplit(question.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    headers = dict(question.headers)
    connection: http.client.HTTPConnection
    proxy = urlsplit(question.proxy) if question.proxy else None
    if proxy is not None and proxy.scheme not in ("http", ""):
        raise NoWay("proxy", f"a proxy of the kind {proxy.scheme} cannot be asked through")
    door = (proxy.hostname or "", proxy.port or 80) if proxy is not None else (host, port)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=question.cafile or None)
        connection = http.client.HTTPSConnection(*door, timeout=question.within, context=context)
        if proxy is not None:
            connection.set_tunnel(host, port, headers=_credentials(question.proxy))
    else:
        connection = http.client.HTTPConnection(*door, timeout=question.within)
        if proxy is not None:
            path, headers = question.url, headers | _credentials(question.proxy)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read(_MOST))
    finally:
        connection.close()


def _credentials(proxy: str | None) -> dict[str, str]:
    parts = urlsplit(proxy or "")
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(os.fsencode(pair)).decode()}"}
