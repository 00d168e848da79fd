"""Listening sockets: one set for the server, and one more for each worker."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from lemonade.core.errors import BadSetting
from lemonade.relay import BACKLOG


def bind(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """Sets of listening sockets on the same addresses; the first is the server's own.

    Raises:
        BadSetting: the address is taken, not ours, or not known; or workers cannot be.
    """
    sockets = _take(host, port)
    return _share(sockets, workers) if workers else [sockets]


def adopted(sets: Sequence[Sequence[int]], *, wanted: bool) -> list[list[socket.socket]]:
    """Sets that this process had in its former life; closed, and none, if they are not wanted."""
    found: list[list[socket.socket]] = []
    for descriptors in sets:
        found.append([])
        for descriptor in descriptors:
            try:
                one = socket.socket(fileno=descriptor)
            except OSError:  # it is not what it was said to be
                wanted = False
                continue
            one.settimeout(0)
            found[-1].append(one)
    if wanted:
        return found
    for one in (one for sockets in found for one in sockets):
        one.close()
    return []


def _take(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for a host; `localhost` is both loopbacks where both exist.

    Raises:
        BadSetting: the address is taken, not ours, or not known.
    """
    names = ("127.0.0.1", "::1") if host == "localhost" else (host or "127.0.0.1",)
    sockets: list[socket.socket] = []
    for index, name in enumerate(names):
        try:
            family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
            one = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
            one.settimeout(0)
            port = one.getsockname()[1]
        except OSError as error:
            if index and error.errno != errno.EADDRINUSE:
                sockets.pop().close()  # no IPv6 here: the IPv4 loopback is enough
                continue
            for opened in sockets:
                opened.close()
            raise _refused(name, port, error) from error
    return sockets


def _refused(host: str, port: int, error: OSError) -> BadSetting:
    if isinstance(error, socket.gaierror):
        return BadSetting(f"'{host}' is not an address this machine knows.")
    if error.errno == errno.EADDRINUSE:
        return BadSetting(
            f"Port {port} on {host} is taken, perhaps by another Lemonade.",
            remedy="`lemonade status` tells; `--port N` takes another one, 0 any free one.",
        )
    return BadSetting(
        f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.",
        remedy="Choose another --host or --port.",
    )


def _share(sockets: Sequence[socket.socket], number: int) -> list[list[socket.socket]]:
    """As many further sets of listening sockets on the same addresses, and one for ourselves.

    The sockets given have made sure that nobody else listens there; they are closed, since they
    share their addresses with nobody.

    Raises:
        BadSetting: this system cannot do that.
    """
    if not all(hasattr(socket, name) for name in ("SO_REUSEPORT", "AF_UNIX", "send_fds")):
        raise BadSetting(
            "Workers need a system on which processes can share a port and pass connections.",
            remedy="Serve without --workers.",
        )
    addresses = [(one.family, one.getsockname()) for one in sockets]
    for one in sockets:
        one.close()
    return [
        [_another(family, address) for family, address in addresses] for _ in range(number + 1)
    ]


def _another(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind(address)
    one.listen(BACKLOG)
    one.settimeout(0)
    return one
