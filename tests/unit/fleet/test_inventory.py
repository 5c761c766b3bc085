"""The inventory: read as Ansible reads it, written by keepers and people alike."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory, Node

COMMENTED = """\
---
# my machines
all:
  vars:
    ansible_user: me  # everywhere
  children:
    rbee_queen:
      hosts:
        desk:

    # the ones that compute
    rbee_hives:
      hosts:
        # under the stairs
        h1:
          ansible_host: 10.0.0.1
          # slow disk
          rbee_hive_slots: 2
        # in the attic
        h2: {}
      # all hives
      vars:
        rbee_hive_port: 9300
# the end
"""


@pytest.fixture(name="inventory")
def _inventory(tmp_path: Path) -> Inventory:
    (tmp_path / "hosts.yml").write_text(COMMENTED)
    return Inventory(tmp_path, Paths(tmp_path.parent / "home"))


def lines_added(before: str, after: str) -> list[str]:
    """Give the lines that are new, and check that nothing that was there moved."""
    old, new = before.splitlines(), after.splitlines()
    rest = iter(new)
    assert all(line in rest for line in old), "a line vanished or moved"
    for line in old:
        new.remove(line)
    return new


def test_adding_a_node_moves_no_comment(inventory: Inventory) -> None:
    """A new node stands below the last hive, and every other line is as it was."""
    inventory.put(Node("h3", host="10.0.0.3", user="root", port=2222), replace=False)

    added = lines_added(COMMENTED, inventory.file.read_text())
    assert [line.strip() for line in added] == [
        "h3:",
        "ansible_host: 10.0.0.3",
        "ansible_port: 2222",
        "ansible_user: root",
    ]
    assert [node.name for node in inventory.nodes()] == ["h1", "h2", "h3"]


def test_adding_and_removing_gives_the_same_text(inventory: Inventory) -> None:
    """A node that came and went leaves no trace in the file."""
    inventory.put(Node("h3", host="10.0.0.3"), replace=False)

    assert inventory.remove("h3")

    assert inventory.file.read_text() == COMMENTED


def test_removing_a_node_takes_no_comment_of_its_neighbour(inventory: Inventory) -> None:
    """What stands above the next node belongs to that one."""
    assert inventory.remove("h1")

    text = inventory.file.read_text()
    assert "# in the attic" in text
    assert "# the ones that compute" in text
    assert "10.0.0.1" not in text
    assert inventory.node("h1") is None


def test_changing_a_node_changes_only_its_values(inventory: Inventory) -> None:
    """A value is replaced where it stands, a new one is added, and what is not named stays."""
    inventory.put(Node("h1", host="10.0.0.9", key_path="/keys/my key"), replace=True)

    text = inventory.file.read_text()
    assert text == COMMENTED.replace("10.0.0.1", "10.0.0.9").replace(
        "rbee_hive_slots: 2\n", 'rbee_hive_slots: 2\n          ansible_ssh_private_key_file: "/keys/my key"\n'
    )


def test_an_empty_place_is_filled(inventory: Inventory) -> None:
    """A host written as `h2: {}` takes variables like any other."""
    inventory.put(Node("h2", host="10.0.0.2"), replace=True)

    node = inventory.require("h2")
    assert (node.host, node.user, node.hive_port) == ("10.0.0.2", "me", 9300)
    assert "# all hives" in inventory.file.read_text()


def test_a_machine_joins_a_group_and_leaves_it_again(inventory: Inventory) -> None:
    """Both edits touch the group alone; who has its variables there, or stands nowhere else, stays."""
    before = inventory.file.read_text()
    name = inventory.nodes()[0].name

    inventory.join(name, "rbee_queen")
    joined = inventory.file.read_text()

    assert "rbee_queen" in inventory.require(name).groups
    assert inventory.leave(name, "rbee_queen")
    assert [node.name for node in inventory.nodes("rbee_queen")] == ["desk"]
    assert set(inventory.file.read_text().splitlines()) <= set(joined.splitlines())
    assert set(before.splitlines()) <= set(inventory.file.read_text().splitlines())
    assert not inventory.leave(name, "rbee_hives")
    assert not inventory.leave(name, "rbee_queen")


def test_a_node_that_is_there_is_not_added_again(inventory: Inventory) -> None:
    """Without replace a known name is refused, with the line on which it stands."""
    with pytest.raises(RbeeError) as raised:
        inventory.put(Node("h1", host="10.9.9.9"), replace=False)

    assert raised.value.code is ErrorCode.NODE_EXISTS
    assert "hosts.yml:15" in raised.value.message
    assert inventory.file.read_text() == COMMENTED


@pytest.mark.parametrize("name", ["", "../h1", "h 1", "-h", "h/1", "h1\n"])
def test_a_name_that_is_no_name_is_refused(inventory: Inventory, name: str) -> None:
    """A node's name becomes a file name and a host name, so nothing else gets in."""
    with pytest.raises(RbeeError) as raised:
        inventory.put(Node(name, host="10.9.9.9"), replace=True)

    assert raised.value.code is ErrorCode.INVALID_REQUEST
    assert inventory.file.read_text() == COMMENTED


def test_a_new_inventory_is_made_with_its_first_node(tmp_path: Path) -> None:
    """A folder that is not there yet is made, with the groups that the playbooks know."""
    inventory = Inventory(tmp_path / "deep" / "inventory", Paths(tmp_path.parent / "home"))
    assert inventory.nodes() == []

    inventory.put(Node("h1", host="10.0.0.1", repo_branch="on"), replace=False)

    assert inventory.require("h1").repo_branch == "on"
    assert inventory.remove("h1")
    assert inventory.nodes(None) == []


def test_two_keepers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Every one of many writers at the same time finds its node in the file at the end."""
    paths = Paths(tmp_path.parent / "home")

    def add(number: int) -> None:
        Inventory(tmp_path, Paths(tmp_path.parent / "home")).put(
            Node(f"h{number}", host=f"10.0.0.{number}"), replace=False
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(1, 25)))

    assert {node.name for node in Inventory(tmp_path, paths).nodes()} == {f"h{number}" for number in range(1, 25)}


def test_variables_come_from_where_ansible_takes_them(inventory: Inventory) -> None:
    """The more special place wins: all, the group, the host; in the file and in the folders beside it."""
    for place, text in {
        "group_vars/all/rbee.yml": "rbee_repo_url: https://a\nrbee_repo_branch: one\nansible_user: nobody\n",
        "group_vars/rbee_hives.yml": "rbee_repo_branch: two\n",
        "host_vars/h2.yml": "rbee_repo_branch: three\n",
    }.items():
        file = inventory.folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    first, second = inventory.require("h1"), inventory.require("h2")
    assert (first.repo_url, first.repo_branch) == ("https://a", "two")
    assert second.repo_branch == "three"


def test_a_vault_without_its_password_is_refused_with_the_way_to_give_it(inventory: Inventory) -> None:
    """Ansible cannot read it either: no machine is shown with half of its variables."""
    folder = inventory.folder / "group_vars" / "all"
    folder.mkdir(parents=True)
    (folder / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")

    with pytest.raises(ConfigError, match="vault") as raised:
        inventory.nodes()

    assert "ANSIBLE_VAULT_PASSWORD_FILE" in str(raised.value.hint)


def test_a_broken_file_is_refused_with_its_line(inventory: Inventory) -> None:
    """A syntax error and a doubled name are told with the line, and nothing is written over them."""
    broken = COMMENTED.replace("        h2: {}", "        h1: {}")
    inventory.file.write_text(broken)

    with pytest.raises(ConfigError) as raised:
        inventory.put(Node("h3"), replace=False)

    assert raised.value.line == 20
    assert inventory.file.read_text() == broken


def test_flow_style_is_left_to_people(inventory: Inventory) -> None:
    """A place written as {a: b} is refused with its line rather than rewritten."""
    inventory.file.write_text("all:\n  children:\n    rbee_hives:\n      hosts: {h1: {ansible_host: 10.0.0.1}}\n")

    with pytest.raises(ConfigError) as raised:
        inventory.put(Node("h2", host="10.0.0.2"), replace=False)

    assert raised.value.line == 4
    assert [node.host for node in inventory.nodes()] == ["10.0.0.1"]


def test_the_example_can_be_copied_and_edited(tmp_path: Path) -> None:
    """The example inventory is one that the keeper can read and change."""
    shutil.copytree(Assets.find().root / "inventory" / "example", tmp_path / "mine")
    inventory = Inventory(tmp_path / "mine", Paths(tmp_path.parent / "home"))
    before = inventory.file.read_text()

    inventory.put(Node("gpu-3", host="192.0.2.13"), replace=False)

    assert [node.name for node in inventory.nodes()] == ["control", "gpu-1", "gpu-2", "gpu-3"]
    assert inventory.remove("gpu-3")
    assert inventory.file.read_text() == before
