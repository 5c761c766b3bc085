"""Keys of clients: shown once, kept as hashes, good for tokens and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.client_keys import ClientKeys


@pytest.fixture(name="keys")
def _keys(tmp_path: Path) -> ClientKeys:
    return ClientKeys(Paths(tmp_path))


@pytest.mark.parametrize(
    ("path", "opens"),
    [
        ("/v1/chat/completions", True),
        ("/v2/tasks", True),
        ("/v2/tasks/task-1", True),
        ("/v1/admin/shutdown", False),
        ("/v2/keys/add", False),
        ("/v2/registry/beehives/remove", False),
        ("/metrics", False),
    ],
)
def test_a_clients_key_opens_inference_only(keys: ClientKeys, path: str, *, opens: bool) -> None:
    """It is the client's on the routes that give tokens, and nobody's on all others."""
    key = keys.add("alice")

    assert keys.owner(path, key) == ("alice" if opens else None)
    assert keys.owner(path, key + "x") is None


def test_keys_are_kept_as_hashes_and_survive_a_restart(keys: ClientKeys, tmp_path: Path) -> None:
    """The file, of mode 0600, does not have the key; the next queen knows it all the same, until it is removed."""
    key = keys.add("alice")
    (file,) = (tmp_path / "secrets" / "clients").iterdir()
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600

    later = ClientKeys(Paths(tmp_path))
    later.load()

    assert later.owner("/v1/models", key) == "alice"
    assert later.remove("alice")
    assert later.owner("/v1/models", key) is None
    assert not later.remove("alice")


@pytest.mark.parametrize("name", ["alice", "operator"])
def test_a_name_is_given_once(keys: ClientKeys, name: str) -> None:
    """A second key for a name, or one for the operator's, is refused."""
    keys.add("alice")

    with pytest.raises(RbeeError) as refused:
        keys.add(name)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
