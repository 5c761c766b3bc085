"""The checks of an inventory together: everything in one run, and nothing twice."""

from __future__ import annotations

from pathlib import Path

from rbee.config.paths import Paths
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory
from rbee.fleet.inventory_check import check_inventory


def errors(folder: Path, files: dict[str, str]) -> list[str]:
    """Write the files of an inventory, and check it."""
    for name, text in files.items():
        file = folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    inventory = Inventory(folder / "inventory", Paths(folder / "home"))
    found = check_inventory(inventory, Assets.find())
    return [error.message.removeprefix(f"{folder}/inventory/") for error in found]


def test_every_kind_of_problem_is_told_in_one_run(tmp_path: Path) -> None:
    """A misspelt variable hides no value out of bounds, and that no setting which the daemon refuses."""
    values = "rbee_hive_prot: 1\nrbee_hive_slots: 0\nrbee_hive_settings: {slotz: 3}\n"

    found = errors(tmp_path, {"hosts.yml": "rbee_hives: {hosts: {h1: }}\n", "group_vars/all.yml": values})

    assert [line.partition(": ")[0] for line in found] == [f"group_vars/all.yml:{line}" for line in (1, 2, 3)]


def test_a_problem_that_several_checks_find_is_told_once(tmp_path: Path) -> None:
    """A text for a number is wrong for the type, the bounds and the daemon; a group by a wrong name for files and
    machines.
    """
    hosts = "rbee_hivs: {hosts: {h1: }}\nrbee_hives: {hosts: {h2: }}\n"

    (group, slots) = errors(tmp_path, {"hosts.yml": hosts, "group_vars/all.yml": "rbee_hive_slots: four\n"})

    assert group.startswith("hosts.yml:1: unknown group 'rbee_hivs'")
    assert slots == "group_vars/all.yml:1: rbee_hive_slots must be a whole number, not 'four'."


def test_what_ansible_refuses_is_told_unless_its_file_was(tmp_path: Path) -> None:
    """A file that is no YAML is told with its line, once; what only Ansible refuses is told in its words."""
    hosts = {"hosts.yml": "rbee_hives: {hosts: {h1: }}\n"}

    (broken,) = errors(tmp_path / "a", {**hosts, "group_vars/all.yml": "a: [\n"})
    (refused,) = errors(tmp_path / "b", {"hosts.yml": "rbee_hives: {children: {rbee_hives: }}\n"})

    assert broken.startswith("group_vars/all.yml:2: is not YAML")
    assert "is refused by Ansible" in refused
