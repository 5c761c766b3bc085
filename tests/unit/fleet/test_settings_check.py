"""What an inventory sets of the daemons is checked by the daemons, before any machine is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.settings_check import DAEMONS, Setting, check_settings, settings_of, variables_of

HIVE, QUEEN = DAEMONS
HOSTS = """\
all:
  children:
    rbee_queen:
      hosts: {h1: }
      vars: {rbee_queen_settings: {queue_size: -1}}
    rbee_hives:
      hosts:
        h1:
          rbee_hive_settings:
            cache_type: q9
        h2:
        h3:
"""


def problems(folder: Path, files: dict[str, str]) -> list[str]:
    """Write the files of an inventory and check it, with paths below its folder."""
    for name, text in files.items():
        file = folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    inventory = Inventory(folder / "inventory", Paths(folder / "home"))
    return [
        str(problem).replace(f"{folder}/inventory/", "").replace(f"{folder}/", "")
        for problem in check_settings(inventory, Assets.find())
    ]


def test_every_setting_is_named_with_its_line_and_its_machines(tmp_path: Path) -> None:
    """Each daemon says what it does not take, wherever the inventory has it, and all of it at once."""
    everywhere = "---\nrbee_hive_settings:\n  # a comment\n  nonsense: 3\n  prompt_batch: 0\nrbee_hive_slots: 100000\n"

    found = problems(tmp_path, {"hosts.yml": HOSTS, "group_vars/rbee_hives.yml": everywhere})

    parts = [
        ("hosts.yml:10: rbee_hive_settings: cache_type: ", "(h1)"),
        ("group_vars/rbee_hives.yml:4: rbee_hive_settings: unknown key 'nonsense' in [hive]", "(h2, h3)"),
        ("group_vars/rbee_hives.yml:5: rbee_hive_settings: prompt_batch: ", "(h2, h3)"),
        ("group_vars/rbee_hives.yml:6: rbee_hive_slots: slots: ", "(h1, h2, h3)"),
        ("hosts.yml:5: rbee_queen_settings: unknown key 'queue_size' in [queen]", "(h1)"),
    ]
    assert len(found) == len(parts)
    for begin, end in parts:
        assert [problem for problem in found if problem.startswith(begin) and problem.endswith(end)], (begin, found)


def test_what_cannot_be_together_is_told(tmp_path: Path) -> None:
    """Two settings that are right alone and wrong together are refused in the daemon's words."""
    both = "rbee_hive_settings: {cache_type: q8_0, flash_attention: false}\n"

    (found,) = problems(
        tmp_path, {"hosts.yml": "rbee_hives: {hosts: {h1: , h2: }}\n", "group_vars/rbee_hives.yml": both}
    )

    assert "cache_type q8_0 needs flash attention" in found
    assert found.endswith("(h1, h2)")


def test_a_machine_s_own_setting_is_told_where_it_stands(tmp_path: Path) -> None:
    """Where a group and a machine set the same, the line is that of the value which is refused."""
    files = {
        "hosts.yml": "rbee_hives: {hosts: {h1: , h2: {rbee_hive_settings: {prompt_batch: 8}}}}\n",
        "group_vars/all.yml": "rbee_hive_settings:\n  prompt_batch: 0\n",
    }

    (found,) = problems(tmp_path, files)

    assert found.startswith("group_vars/all.yml:2: rbee_hive_settings: prompt_batch: ")
    assert found.endswith("(h1)")


@pytest.mark.parametrize("daemon", DAEMONS, ids=lambda daemon: daemon.program)
def test_the_settings_that_a_role_renders_are_those_that_are_checked(daemon: tuple[str, ...]) -> None:
    """The role's own table says which variable is which setting."""
    variables = variables_of(HIVE if daemon is HIVE else QUEEN, Assets.find())

    prefix = f"rbee_{daemon[1]}_"
    assert variables[f"{prefix}port"] == "port"
    assert len(variables) >= 5
    assert all(variable.startswith(prefix) for variable in variables)


def test_only_what_has_its_value_already_is_checked() -> None:
    """A template is known when Ansible runs; the role's own settings give way to those of the mapping."""
    variables = {
        "rbee_hive_slots": 4,
        "rbee_hive_port": "{{ base + 1 }}",
        "rbee_hive_settings": {"slots": 8, "cache_type": "{{ type }}"},
    }
    node = Node("h1", variables=variables)

    found = settings_of(node, HIVE, {"rbee_hive_slots": "slots", "rbee_hive_port": "port"})

    assert found == [Setting("slots", 8, "rbee_hive_settings", "slots")]


def test_an_inventory_in_order_passes(tmp_path: Path) -> None:
    """What the example shows is taken, and no program is asked about nothing."""
    chosen = "rbee_hive_settings: {cache_type: q8_0, prompt_batch: 1024, speculate: 8, cpu_memory_gb: 24}\n"

    assert problems(tmp_path, {"hosts.yml": "rbee_hives: {hosts: {h1: }}\n", "group_vars/rbee_hives.yml": chosen}) == []
