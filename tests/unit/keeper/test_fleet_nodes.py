"""What the keeper decides about machines before it reaches any."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.inventory import Node
from rbee.keeper.fleet.cache import FleetCache
from rbee.keeper.fleet.nodes import check_key_file
from rbee.keeper.fleet.registration import _differs, registry_row
from rbee.keeper.ui import interrupts
from rbee.keeper.ui.options import nodes_options


def test_a_key_that_only_its_owner_reads_is_taken(tmp_path: Path) -> None:
    """The inventory gets the key's whole path."""
    key = tmp_path / "key"
    key.touch(mode=0o600)

    assert check_key_file(str(key)) == str(key)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    """ssh would refuse it too, after a connection and in other words."""
    key = tmp_path / "key"
    key.touch()
    key.chmod(mode)

    with pytest.raises(RbeeError) as refusal:
        check_key_file(str(key))

    assert refusal.value.code is ErrorCode.SSH_AUTH_FAILED
    assert refusal.value.hint == f"chmod 600 {key}"


def test_a_key_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    """The path is in the message."""
    for path in (tmp_path / "none", tmp_path):
        path.chmod(0o700) if path.exists() else None
        with pytest.raises(RbeeError) as refusal:
            check_key_file(str(path))
        assert refusal.value.code is ErrorCode.SSH_KEY_NOT_FOUND
        assert str(path) in refusal.value.message


def test_a_machine_in_the_terms_of_the_registry() -> None:
    """What the inventory does not say has its usual value; what a survey saw goes along."""
    row = registry_row(Node("h1", host="10.0.0.1", user="bee"), {"backends": ["cpu"], "devices": {"cpu": 1}})

    assert (row["ssh_host"], row["ssh_port"], row["hive_port"]) == ("10.0.0.1", 22, 9200)
    assert (row["git_branch"], row["install_path"], row["backends"]) == ("main", "/opt/rbee", ["cpu"])


def test_only_what_the_inventory_says_makes_a_queen_be_told_again() -> None:
    """What the hive itself says of its devices is newer than any survey."""
    row = registry_row(Node("h1", host="10.0.0.1", user="bee"), {"backends": ["cpu"]})

    assert _differs(row, None)
    assert not _differs(row, {**row, "backends": ["cuda", "cpu"], "status": "reachable"})
    assert _differs(row, {**row, "ssh_host": "10.0.0.2"})


def test_what_was_seen_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    """What is not known now does not wipe out what was known before; a broken file counts as empty."""
    memory = FleetCache(Paths(tmp_path))
    memory.update({"h1": {"backends": ["cpu"], "last_connected_unix": 7, "ssh_host": "10.0.0.1"}})
    memory.update({"h1": {"backends": [], "last_connected_unix": 9}})

    assert memory.read() == {"h1": {"backends": ["cpu"], "last_connected_unix": 9}}
    memory.remove("h1")
    assert memory.read() == {}
    (tmp_path / "run" / "machines.json").write_text("{")
    assert memory.read() == {}


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [(["--node", "h1"], "h1"), (["--all"], None), ([], "refused"), (["--all", "--node", "h1"], "refused")],
)
def test_one_machine_or_all(arguments: list[str], chosen: str | None) -> None:
    """Exactly one of --node and --all is given."""
    seen: list[str | None] = []

    @click.command()
    @nodes_options
    def command(node: str | None) -> None:
        seen.append(node)

    code = CliRunner().invoke(command, arguments).exit_code

    assert (code, seen) == ((2, []) if chosen == "refused" else (0, [chosen]))


def test_a_signal_is_noted_and_handlers_are_as_before() -> None:
    """Work that ends itself in order is asked to, not interrupted."""
    before = signal.getsignal(signal.SIGINT)

    with interrupts.defer_signals() as asked:
        assert asked() is None
        signal.raise_signal(signal.SIGINT)
        assert asked() == signal.SIGINT

    assert signal.getsignal(signal.SIGINT) is before


def test_the_memory_is_one_small_file(tmp_path: Path) -> None:
    """It is JSON that a person can read."""
    FleetCache(Paths(tmp_path)).update({"h1": {"devices": {"cpu": 1}}})

    assert json.loads((tmp_path / "run" / "machines.json").read_text()) == {"h1": {"devices": {"cpu": 1}}}
