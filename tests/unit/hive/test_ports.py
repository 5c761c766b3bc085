"""A worker gets the next free port, and a port in use is skipped and said."""

from __future__ import annotations

import socket

import pytest

from rbee.errors import RbeeError
from rbee.hive.workers.ports import choose_port
from tests.support.machine import free_ports


def test_a_port_in_use_is_skipped_and_said() -> None:
    """A port that another program has is passed over, and the choice says so."""
    first = free_ports(1)[0]
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()

        choice = choose_port("127.0.0.1", first, ours=())

    assert choice.port > first
    assert choice.skipped[0] == first
    assert str(first) in choice.remark


def test_our_own_ports_are_passed_over_in_silence() -> None:
    """A port that this hive gave to a worker is neither taken twice nor complained about."""
    first = free_ports(1)[0]

    choice = choose_port("127.0.0.1", first, ours={first})

    assert choice.port != first
    assert first not in choice.skipped


def test_zero_means_any_port() -> None:
    """With 0 the system chooses."""
    choice = choose_port("127.0.0.1", 0, ours=())

    assert choice.port > 1023
    assert choice.remark == ""


def test_an_address_that_is_not_ours_is_refused() -> None:
    """Workers on an address of another machine cannot be started, and the address is named."""
    with pytest.raises(RbeeError, match=r"192\.0\.2\.1"):
        choose_port("192.0.2.1", 8001, ours=())
