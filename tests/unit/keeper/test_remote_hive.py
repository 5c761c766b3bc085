"""The look at another machine's hive before a task goes there."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.fleet import remote_hive
from rbee.keeper.fleet.remote_hive import RemoteHive
from tests.support.waiting import slowness


def check(monkeypatch: pytest.MonkeyPatch, url: str) -> tuple[RbeeError, float]:
    """Look at a hive that the queen knows and cannot reach; return the error and the seconds until it came."""
    monkeypatch.setattr(remote_hive, "known_nodes", lambda _settings: [])
    view = {"node": "attic", "url": url, "connected": False, "last_error": "no connection"}
    session: Any = SimpleNamespace(settings=None)
    queen: Any = SimpleNamespace(url="http://127.0.0.1:8080", hives=lambda _name: [view])
    began = time.monotonic()
    with pytest.raises(RbeeError) as caught:
        RemoteHive(session, queen, "attic", lambda *_: None).ensure()
    return caught.value, time.monotonic() - began


def test_a_hive_that_accepts_and_is_silent_is_told_to_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is running, so that starting it over SSH would help nothing: the error says so, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"

        error, seconds = check(monkeypatch, url)

    assert error.code is ErrorCode.CONNECTION_TIMEOUT
    assert f"accepts connections at {url}" in error.message
    assert "hive stop --node attic" in error.hint
    assert seconds < 10 * slowness()


def test_a_port_that_nobody_listens_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names address and port, and comes within 15 s."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    error, seconds = check(monkeypatch, url)

    assert error.code is ErrorCode.CONNECTION_TIMEOUT
    assert f"does not respond at {url}" in error.message
    assert seconds < 15 * slowness()


@pytest.mark.parametrize(("queen", "where"), [("127.0.0.1", "this machine"), ("192.0.2.1", "the queen's machine")])
def test_the_way_that_is_to_be_opened_begins_at_the_queen(queen: str, where: str) -> None:
    """It is the queen that connects to a hive, wherever the keeper runs."""
    session: Any = SimpleNamespace(settings=None)
    view = {"node": "attic", "url": "http://10.0.0.1:9200", "last_error": "connection refused"}
    client: Any = SimpleNamespace(url=f"http://{queen}:8080", hives=lambda _name: [view])

    error = RemoteHive(session, client, "attic", lambda *_: None)._without_channel("http://10.0.0.1:9200")

    assert "at http://10.0.0.1:9200: connection refused" in error.message
    assert f"reachable from {where} and" in error.hint
