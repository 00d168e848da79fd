"""The server's port: free, a Lemonade's, or a stranger's.

A port is tried as the server would take it, and given back at once; what holds it is asked the one
question that only a Lemonade answers.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import psutil

from lemonade.client import LemonadeClient, resolve_key
from lemonade.core.errors import LemonadeError
from lemonade.core.records import dataclass
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence

ANSWER_SECONDS: Final = 2.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1", "localhost": "127.0.0.1"}  # noqa: S104 - asked there, not bound
_LOWEST: Final = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server would listen; `websocket` is 0 if it takes any free port."""

    host: str
    port: int
    websocket: int = 0


def check_ports(
    listening: Listening, version: str, ask: Callable[[str], str | None]
) -> tuple[Finding, ...]:
    """Look at the port, and at the one for WebSockets if that was chosen.

    Args:
        listening: where.
        version: of this Lemonade.
        ask: the version of the Lemonade at that URL, empty if it does not say, and `None` if it
            is none; `lemonade_at` outside tests.
    """
    book = Notebook("ports")
    served = _look(book, listening.host, listening.port, version, ask)
    if listening.websocket == listening.port:
        book.error(
            "same-port",
            f"The settings give {listening.port} to the server and to WebSockets.",
            Evidence("websocket_port", str(listening.websocket)),
            fix="`lemonade config set websocket_port=auto`.",
        )
    elif listening.websocket and not served:
        _look(book, listening.host, listening.websocket, version, ask, setting="websocket_port")
    return book.findings


def lemonade_at(environ: Mapping[str, str]) -> Callable[[str], str | None]:
    """What to ask a server with; the key is taken from the environment."""

    def ask(url: str) -> str | None:
        with LemonadeClient(url, resolve_key(None, environ)) as client:
            try:
                if not client.live(ANSWER_SECONDS):
                    return None
            except LemonadeError:  # an error where a Lemonade has none
                return None
            try:
                return str(client.health(ANSWER_SECONDS).get("version") or "")
            except LemonadeError:  # it wants another key, or is busy: it is one all the same
                return ""

    return ask


def _look(
    book: Notebook,
    host: str,
    port: int,
    version: str,
    ask: Callable[[str], str | None],
    *,
    setting: str = "port",
) -> bool:
    """Whether a Lemonade serves there."""
    where = f"{host or 'localhost'}:{port}"
    refused = _refused(host, port)
    if refused is None:
        book.ok(f"Port {port} on {host or 'localhost'} is free.")
        return False
    seen = Evidence(where, os.strerror(refused))
    if refused == errno.EADDRINUSE:
        return _taken(book, host, port, version, ask, setting=setting)
    if refused == errno.EACCES:
        book.error(
            "port-forbidden",
            f"This user may not listen on port {port}.",
            seen,
            fix=f"Take one from {_LOWEST} up: `lemonade config set {setting}=13305`; a service "
            "may be given `AmbientCapabilities=CAP_NET_BIND_SERVICE`.",
        )
    else:
        book.error(
            "no-such-address",
            f"The server cannot listen on {where}: that is no address of this machine.",
            seen,
            fix="`lemonade serve --host localhost` starts it for this machine only; "
            "`lemonade config set host=localhost` keeps that.",
        )
    return False


def _taken(
    book: Notebook,
    host: str,
    port: int,
    version: str,
    ask: Callable[[str], str | None],
    *,
    setting: str,
) -> bool:
    address = _ANY.get(host, host)
    found = ask(f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}")
    holder = _holder(port)
    seen = Evidence(f"port {port}", holder or "held by a process that cannot be seen from here")
    by = f" ({holder})" if holder else ""
    if found is None:
        book.error(
            "port-taken",
            f"Port {port} is held by another program{by}, so the server cannot start there.",
            seen,
            fix=f"End that program, or give the server another port: `lemonade serve --port "
            f"{port + 1 if port < 65535 else 13305}` for once, `lemonade config set {setting}=N` "
            "while a server runs, or LEMONADE_PORT=N for the server and for every command.",
        )
        return False
    if found and found != version:
        book.note(
            "other-version",
            f"Lemonade {found} serves port {port}{by}, and this is {version}.",
            seen,
            fix="`lemonade stop` and `lemonade serve` put this version in its place.",
        )
    else:
        book.ok(f"Lemonade {found or '(it does not say which)'} serves port {port}{by}.", seen)
    return True


def _refused(host: str, port: int) -> int | None:
    """Why the port cannot be taken, as `errno` has it; `None` if it can.

    `localhost` is both loopbacks, as for the server; the second one need not be there.
    """
    names = ("127.0.0.1", "::1") if host in ("", "localhost") else (host,)
    for index, name in enumerate(names):
        refused = _refused_address(name, port)
        if refused is not None and (index == 0 or refused == errno.EADDRINUSE):
            return refused
    return None


def _refused_address(name: str, port: int) -> int | None:
    try:
        family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        known = isinstance(error.errno, int) and error.errno > 0  # not so where a name is unknown
        return error.errno if known else errno.EADDRNOTAVAIL
    return None


def _holder(port: int) -> str:
    """Name and number of the process that listens there; empty if we may not see it."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                return f"{psutil.Process(one.pid).name()}, pid {one.pid}" if one.pid else ""
    except (psutil.Error, OSError):
        return ""
    return ""
