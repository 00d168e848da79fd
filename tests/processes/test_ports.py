"""Private ports: lent once, and known by who listens."""

from __future__ import annotations

import os
import socket

from lemonade.supervisor.ports import LOOPBACK, Ports, taken_by_others


def test_no_port_is_lent_twice() -> None:
    ports = Ports()
    leases = [ports.lease() for _ in range(200)]
    assert len({lease.port for lease in leases}) == 200


def test_a_leased_port_can_be_bound() -> None:
    with Ports().lease() as lease, socket.socket() as listener:
        listener.bind((LOOPBACK, lease.port))


def test_a_released_port_may_be_lent_again() -> None:
    leased: set[int] = set()
    ports = Ports()
    ports._leased = leased
    lease = ports.lease()
    assert leased == {lease.port}
    lease.release()
    lease.release()
    assert not leased


def test_who_listens_is_known() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        assert not taken_by_others(port, [os.getpid()])
        assert not taken_by_others(port, [])
        assert taken_by_others(port, [os.getppid()])
    assert not taken_by_others(port, [os.getpid()])


def test_a_listener_on_the_other_family_of_addresses_is_seen() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        assert not taken_by_others(port, [os.getpid()])
        assert taken_by_others(port, [os.getppid()])
