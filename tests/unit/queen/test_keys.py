"""Keys of clients: shown once, kept as hashes, found by them, and their last use written down."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import KeyChange, KeySpec, Right
from rbee.errors import RbeeError
from rbee.queen.database import Database
from rbee.queen.keys.store import ClientKeys
from rbee.queen.usage.store import UsageStore

R = TypeVar("R")
NOON = 1_800_014_400  # 2027-01-15 12:00 UTC


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def with_keys(home: Path, work: Callable[[ClientKeys], Awaitable[R]], clock: Clock | None = None) -> R:
    """Run *work* with the keys of a queen's run, loaded before and written at its end."""

    async def run() -> R:
        database = Database(None, Paths(home))
        now = clock or Clock()
        keys = ClientKeys(database, Paths(home), UsageStore(database, keep_days=1, create=False, now=now), now=now)
        try:
            await database.open()
            await keys.load()
            return await work(keys)
        finally:
            await keys.write(last=True)
            await database.close()

    return asyncio.run(run())


def test_keys_are_kept_as_hashes_and_survive_a_restart(tmp_path: Path) -> None:
    """The database does not have the key; the next queen knows it with all that it allows, until it is removed."""
    spec = KeySpec(
        name="alice",
        rights=[Right.OPERATE],
        models=["bee"],
        max_priority=3,
        max_tasks=2,
        tokens_per_day=1000,
        expires_unix=NOON + 60,
    )
    key = with_keys(tmp_path, lambda keys: keys.add(spec))
    assert key.encode() not in (tmp_path / "beehives.db").read_bytes()

    async def later(keys: ClientKeys) -> None:
        client = keys.find("/v1/models", key)
        assert client is not None
        assert (client.name, client.rights, client.models) == ("alice", frozenset({Right.OPERATE}), frozenset({"bee"}))
        assert (client.max_priority, client.max_tasks, client.tokens_per_day) == (3, 2, 1000)
        (info,) = keys.list()
        assert info.model_dump(include=set(KeySpec.model_fields)) == spec.model_dump()
        await keys.remove("alice")
        assert keys.find("/v1/models", key) is None
        with pytest.raises(RbeeError) as caught:
            await keys.remove("alice")
        assert caught.value.code is ErrorCode.KEY_NOT_FOUND

    with_keys(tmp_path, later)
    assert with_keys(tmp_path, lambda keys: _listed(keys)) == []


async def _listed(keys: ClientKeys) -> list[str]:
    return [key.name for key in keys.list()]


def test_a_home_without_keys_has_no_database(tmp_path: Path) -> None:
    """A queen that never had a key needs no database for them."""

    async def work(keys: ClientKeys) -> None:
        assert keys.find("/v1/models", "nobody's") is None
        await keys.write()

    with_keys(tmp_path, work)

    assert list(tmp_path.iterdir()) == []


def test_keys_of_an_earlier_version_are_taken_over_once(tmp_path: Path) -> None:
    """A file with a hash becomes a key that may infer; the file is gone, so that a removed key stays removed."""
    key = "a-key-of-an-earlier-version"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    file = tmp_path / "secrets" / "clients" / "alice"
    file.parent.mkdir(parents=True)
    file.write_text(sha256 + "\n")
    file.chmod(0o600)

    async def first(keys: ClientKeys) -> None:
        client = keys.find("/v1/models", key)
        assert client is not None
        assert (client.name, client.rights) == ("alice", frozenset({Right.INFER}))
        await keys.remove("alice")

    with_keys(tmp_path, first)

    assert not file.exists()
    assert with_keys(tmp_path, _listed) == []


@pytest.mark.parametrize("name", ["alice", "operator"])
def test_a_name_is_given_once(tmp_path: Path, name: str) -> None:
    """A second key for a name, or one for the operator's, is refused."""

    async def work(keys: ClientKeys) -> None:
        await keys.add(KeySpec(name="alice"))
        with pytest.raises(RbeeError) as refused:
            await keys.add(KeySpec(name=name))
        assert refused.value.code is ErrorCode.INVALID_REQUEST
        # Nobody can change or remove the operator's.
        assert ("keys remove" in refused.value.hint) is (name == "alice")

    with_keys(tmp_path, work)


def test_an_expired_key_says_so(tmp_path: Path) -> None:
    """It is INVALID_API_KEY with the time; more time makes it valid again, and one that is over at once is refused."""
    clock = Clock()

    async def work(keys: ClientKeys) -> None:
        key = await keys.add(KeySpec(name="alice", expires_unix=NOON + 60))
        assert keys.find("/v1/models", key)
        clock.now += 60
        with pytest.raises(RbeeError, match=r"alice has expired \(2027-01-15 12:01 UTC\)") as caught:
            keys.find("/v1/models", key)
        assert caught.value.code is ErrorCode.INVALID_API_KEY
        await keys.change(KeyChange.model_validate({"name": "alice", "expires_unix": None}))
        assert keys.find("/v1/models", key)
        with pytest.raises(RbeeError, match="passed"):
            await keys.add(KeySpec(name="bob", expires_unix=int(clock.now)))

    with_keys(tmp_path, work, clock)


def test_a_change_touches_only_what_it_names(tmp_path: Path) -> None:
    """What is left out stays, null removes a limit, and it counts from the next request on, and after a restart."""

    async def work(keys: ClientKeys) -> str:
        key = await keys.add(KeySpec(name="alice", max_tasks=2, tokens_per_day=10))
        await keys.change(KeyChange.model_validate({"name": "alice", "tokens_per_day": None, "max_priority": 5}))
        return key

    key = with_keys(tmp_path, work)

    async def later(keys: ClientKeys) -> tuple[object, ...]:
        client = keys.find("/v1/models", key)
        assert client is not None
        return client.max_tasks, client.tokens_per_day, client.max_priority

    assert with_keys(tmp_path, later) == (2, None, 5)


def test_the_last_use_is_kept_to_the_minute(tmp_path: Path) -> None:
    """It is written at most once a minute however often the key is used, and at the queen's end."""
    clock = Clock()

    def stored() -> int | None:
        with sqlite3.connect(tmp_path / "beehives.db") as database:
            (at,) = database.execute("select last_used_unix from client_keys").fetchone()
            return at if isinstance(at, int) else None

    async def work(keys: ClientKeys) -> None:
        key = await keys.add(KeySpec(name="alice"))
        for seconds, expected in ((0, NOON), (30, NOON), (60, NOON + 60), (90, NOON + 60)):
            clock.now = NOON + seconds
            keys.find("/v1/models", key)
            await keys.write()
            assert stored() == expected

    with_keys(tmp_path, work, clock)

    assert stored() == NOON + 90
