"""What the keeper decides about machines before it reaches any."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rbee.config.file import ConfigFile
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.inventory import Node
from rbee.keeper.fleet.cache import FleetCache
from rbee.keeper.fleet.inventory import select_nodes
from rbee.keeper.fleet.nodes import check_key_file
from rbee.keeper.fleet.registration import _differs, registry_row
from rbee.keeper.settings import Settings, load
from rbee.keeper.ui import interrupts
from rbee.keeper.ui.options import Selection, nodes_options


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
    [
        (["--node", "h1"], Selection(("h1",))),
        (["--node", "h1,h2", "--node", "h1"], Selection(("h1", "h2"))),
        (["--group", "gpu", "--node", "h1"], Selection(("h1",), ("gpu",))),
        (["--all"], Selection()),
        ([], None),
        (["--all", "--node", "h1"], None),
        (["--all", "--group", "gpu"], None),
        (["--node", "h1,,h2"], None),
    ],
)
def test_some_machines_some_groups_or_all(arguments: list[str], chosen: Selection | None) -> None:
    """Nodes and groups can be named together, each name counts once; --all stands alone."""
    seen: list[Selection] = []

    @click.command()
    @nodes_options
    def command(selection: Selection) -> None:
        seen.append(selection)

    code = CliRunner().invoke(command, arguments).exit_code

    assert (code, seen) == ((2, []) if chosen is None else (0, [chosen]))


@pytest.mark.parametrize("selection", [Selection(("h1",)), Selection(("h1", "h2"), ("gpu",)), Selection()])
def test_a_selection_can_be_typed_again(selection: Selection) -> None:
    """The next step that is printed selects the same machines."""
    seen: list[Selection] = []

    @click.command()
    @nodes_options
    def command(selection: Selection) -> None:
        seen.append(selection)

    CliRunner().invoke(command, selection.options.split())

    assert seen == [selection]


@pytest.fixture(name="settings", scope="module")
def _settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Give settings with an inventory of three hives in two groups, and a machine that is none."""
    home = tmp_path_factory.mktemp("home")
    hosts = {
        "rbee_hives": {"hosts": {"h1": None, "h2": None, "h3": None}},
        "gpu": {"hosts": {"h3": None, "h2": None}},
        "desks": {"hosts": {"d1": None}},
    }
    (home / "inventory").mkdir()
    (home / "inventory" / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}))
    return load({"RBEE_HOME": str(home)}, ConfigFile(None, {}, ""))


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), ["h1", "h2", "h3"]),
        (Selection(("h3", "h1")), ["h1", "h3"]),
        (Selection((), ("gpu",)), ["h2", "h3"]),
        (Selection(("h1",), ("gpu",)), ["h1", "h2", "h3"]),
    ],
)
def test_machines_are_selected_in_the_inventorys_order(
    settings: Settings, selection: Selection, names: list[str]
) -> None:
    """However they are named, each machine is there once, where the inventory has it."""
    assert sorted(node.name for node in select_nodes(settings, selection)) == names


@pytest.mark.parametrize(
    ("selection", "code", "words"),
    [
        (Selection(("h9", "h1")), ErrorCode.NODE_NOT_FOUND, "'h9'"),
        (Selection((), ("cpu",)), ErrorCode.INVALID_REQUEST, "it has: desks, gpu, rbee_hives"),
        (Selection((), ("desks",)), ErrorCode.INVALID_REQUEST, "no hive"),
    ],
)
def test_a_selection_of_nobody_says_what_there_is(
    settings: Settings, selection: Selection, code: ErrorCode, words: str
) -> None:
    """An unknown machine, an unknown group and a group without hives each have their own words."""
    with pytest.raises(RbeeError) as refusal:
        select_nodes(settings, selection)

    assert refusal.value.code is code
    assert words in refusal.value.message


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
