"""The node registry survives, refuses doubles, and says what is wrong with its file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from rbee.config.paths import Paths
from rbee.contracts.devices import Backend, Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeSpec, NodeStatus
from rbee.errors import ConfigError, RbeeError
from rbee.queen.database import Database
from rbee.queen.fleet.node_specs import parse_nodes
from rbee.queen.fleet.node_store import HiveKeys, NodeStore
from tests.unit.queen.fleet import device

R = TypeVar("R")
SPEC = NodeSpec(
    node_name="attic",
    ssh_host="10.0.0.7",
    ssh_port=2222,
    ssh_user="bee",
    ssh_key_path="/keys/attic",
    git_repo_url="https://host/rbee",
    git_branch="next",
    install_path="/opt/rbee",
    hive_port=9300,
    hive_key="the-key-of-the-attic",
    backends=[Backend.CPU],
    devices={Backend.CPU: 1},
)


def with_store(home: Path, work: Callable[[NodeStore], Awaitable[R]]) -> R:
    """Run *work* with a store in *home*, opened and closed around it."""

    async def run() -> R:
        database = Database(None, Paths(home))
        try:
            await database.open()
            return await work(NodeStore(database))
        finally:
            await database.close()

    return asyncio.run(run())


def test_every_field_survives_a_restart(tmp_path: Path) -> None:
    """What was added is read back whole by another life."""
    with_store(tmp_path, lambda store: store.add([SPEC]))

    (node,) = with_store(tmp_path, lambda store: store.list())

    given = SPEC.model_dump(exclude={"hive_key", "replace"})
    assert node.model_dump(include=set(given)) == given
    assert (node.status, node.last_connected_unix) == (NodeStatus.UNKNOWN, None)


def test_the_key_of_a_hive_is_not_in_the_database(tmp_path: Path) -> None:
    """No byte of the key reaches the database's files."""
    with_store(tmp_path, lambda store: store.add([SPEC]))

    assert all(b"the-key-of-the-attic" not in path.read_bytes() for path in tmp_path.glob("beehives.db*"))


def test_a_node_is_not_added_twice(tmp_path: Path) -> None:
    """A second add is NODE_EXISTS and changes nothing; with `replace` it changes the node."""
    other = SPEC.model_copy(update={"ssh_host": "10.0.0.8"})

    async def story(store: NodeStore) -> None:
        await store.add([SPEC])
        with pytest.raises(RbeeError) as caught:
            await store.add([other])
        assert caught.value.code is ErrorCode.NODE_EXISTS
        assert [node.ssh_host for node in await store.list()] == ["10.0.0.7"]

        await store.add([other.model_copy(update={"replace": True})])
        assert [node.ssh_host for node in await store.list()] == ["10.0.0.8"]

    with_store(tmp_path, story)


def test_of_several_nodes_all_are_added_or_none(tmp_path: Path) -> None:
    """One that is there already keeps all the others out, and each such one is named; `replace` is of each node."""
    barn, cellar = (SPEC.model_copy(update={"node_name": name}) for name in ("barn", "cellar"))

    async def story(store: NodeStore) -> None:
        assert [node.node_name for node in await store.add([cellar, SPEC])] == ["cellar", "attic"]
        with pytest.raises(
            RbeeError, match=r"No node was added, because of 2 of 3: .*; cellar: there already"
        ) as caught:
            await store.add([SPEC, barn, cellar])
        assert caught.value.code is ErrorCode.NODE_EXISTS
        assert [row["node"] for row in caught.value.details["nodes"]] == ["attic", "cellar"]
        assert [node.node_name for node in await store.list()] == ["attic", "cellar"]

        moved = SPEC.model_copy(update={"ssh_host": "10.0.0.9", "replace": True})
        assert [node.ssh_host for node in await store.add([barn, moved])] == ["10.0.0.7", "10.0.0.9"]
        assert [node.node_name for node in await store.list("attic", 1)] == ["barn"]

    with_store(tmp_path, story)


def test_what_is_wrong_is_told_of_each_node_by_its_name() -> None:
    """A name that is given twice, a field that is not what it must be, something that is no node at all."""
    good = {"node_name": "attic", "ssh_host": "10.0.0.7"}
    with pytest.raises(RbeeError) as caught:
        parse_nodes([good, {"node_name": "barn", "ssh_host": "no host"}, good, 7, {"ssh_host": "10.0.0.8"}])

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert {row["node"]: row["reason"] for row in caught.value.details["nodes"]} == {
        "barn": "ssh_host: not a host name or an IP address (got 'no host')",
        "attic": "it is named twice in this request",
        "nodes.3": "Input should be a valid dictionary or instance of NodeSpec (got 7)",
        "nodes.4": "node_name: Field required",
    }
    assert "barn: ssh_host: " in caught.value.message
    assert [spec.node_name for spec in parse_nodes([good])] == ["attic"]


def test_a_node_that_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    """Removing works once; then it is NODE_NOT_FOUND."""

    async def story(store: NodeStore) -> None:
        await store.add([SPEC])
        await store.remove("attic")
        assert await store.list() == []
        with pytest.raises(RbeeError) as caught:
            await store.remove("attic")
        assert caught.value.code is ErrorCode.NODE_NOT_FOUND

    with_store(tmp_path, story)


def test_what_is_seen_of_a_node_is_kept(tmp_path: Path) -> None:
    """Reached and lost leave status, time, devices and the reason."""
    detection = Detection(devices=[device(Backend.CUDA, 0), device(Backend.CUDA, 1), device()])

    async def story(store: NodeStore) -> None:
        await store.add([SPEC])
        await store.record_reached("attic", detection, now=1_700_000_000.5)
        await store.record_reached("nobody", detection, now=1.0)
        (node,) = await store.list()
        assert (node.status, node.last_connected_unix) == (NodeStatus.REACHABLE, 1_700_000_000)
        assert (node.backends, node.devices) == ([Backend.CUDA, Backend.CPU], {Backend.CUDA: 2, Backend.CPU: 1})

        await store.record_lost("attic", "connection refused")
        (node,) = await store.list()
        assert (node.status, node.last_error) == (NodeStatus.UNREACHABLE, "connection refused")
        assert node.last_connected_unix == 1_700_000_000

    with_store(tmp_path, story)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A broken beehives.db is STATE_CORRUPT with its path and what to do, and is left as it is."""
    path = tmp_path / "beehives.db"
    path.write_bytes(b"this is not a database, it only has its name" * 100)

    with pytest.raises(RbeeError) as caught:
        with_store(tmp_path, lambda store: store.list())

    assert caught.value.code is ErrorCode.STATE_CORRUPT
    assert str(path) in caught.value.message
    assert str(path) in caught.value.hint
    assert path.read_bytes().startswith(b"this is not")


def test_a_database_out_of_reach_is_named(tmp_path: Path) -> None:
    """A folder that is not there is an error with the path, not a traceback."""
    with pytest.raises(RbeeError) as caught:
        with_store(tmp_path / "missing", lambda store: store.add([SPEC]))

    assert caught.value.code is ErrorCode.PERMISSION_DENIED
    assert str(tmp_path / "missing") in caught.value.message


def test_a_home_without_nodes_has_no_database(tmp_path: Path) -> None:
    """Nothing is written before the first node is added; an empty registry is listed, and has nothing to remove."""

    async def story(store: NodeStore) -> None:
        assert await store.list() == []
        await store.record_lost("attic", "nobody knows it")
        with pytest.raises(RbeeError) as caught:
            await store.remove("attic")
        assert caught.value.code is ErrorCode.NODE_NOT_FOUND

    with_store(tmp_path, story)

    assert list(tmp_path.iterdir()) == []


def test_another_database_is_chosen_by_url(tmp_path: Path) -> None:
    """Any URL of SQLAlchemy works; nonsense is refused with examples."""
    other = tmp_path / "other.db"

    async def run() -> None:
        database = Database(f"sqlite:///{other}", Paths(tmp_path))
        await database.open()
        await NodeStore(database).add([SPEC])
        await database.close()

    asyncio.run(run())
    assert other.exists()
    for nonsense in ("nonsense", "nosuchdatabase://host/name"):
        with pytest.raises(ConfigError, match="postgresql"):
            asyncio.run(Database(nonsense, Paths(tmp_path)).open())


def test_keys_of_hives_are_private_files(tmp_path: Path) -> None:
    """A key is written with mode 0600, read back, and removed without complaint if it is not there."""
    keys = HiveKeys(Paths(tmp_path))
    assert keys.read(["attic"]) == {}

    keys.write({"attic": "first key"})
    keys.write({"attic": "second key", "cellar": "its key"})

    assert keys.read(["attic", "barn", "cellar"]) == {"attic": "second key", "cellar": "its key"}
    assert (tmp_path / "secrets" / "hives" / "attic").stat().st_mode & 0o777 == 0o600
    keys.remove("attic")
    keys.remove("attic")
    assert keys.read(["attic"]) == {}
