"""What an inventory comes to is checked: bounds, addresses, groups, variables of nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory
from rbee.fleet.inventory_check import check_machines

TWO = "rbee_hives:\n  hosts:\n    h1: {ansible_host: 10.0.0.1}\n    h2: {ansible_host: 10.0.0.2}\n"


def problems(folder: Path, files: dict[str, str] | None = None) -> list[str]:
    """Write the files of an inventory, two machines without them, and check it."""
    for name, text in {"hosts.yml": TWO, **(files or {})}.items():
        file = folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return [str(problem) for problem in check_machines(Inventory(folder / "inventory", Paths(folder / "home")))]


def test_an_inventory_in_order_has_no_problems(tmp_path: Path) -> None:
    """Two machines at two addresses pass, and so does the example that people copy."""
    assert problems(tmp_path) == []
    assert check_machines(Inventory(Assets.find().example_inventory, Paths(tmp_path / "home"))) == []


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("rbee_hive_slots: -3", "rbee_hive_slots must be 1 or more, not -3. (h1, h2)"),
        ("rbee_hive_port: 99999", "rbee_hive_port must be a port from 1 to 65535, not 99999."),
        ("ansible_port: 0", "ansible_port must be a port"),
        ("rbee_state_path: srv/rbee", "rbee_state_path must be an absolute path, not 'srv/rbee'."),
        ("rbee_state_path: /srv/../etc", "must be an absolute path"),
        ("rbee_install_path: /", "rbee_install_path must be a folder of rbee's own, not '/'."),
        ("rbee_state_path: /var/lib/", "must be a folder of rbee's own"),
        ("rbee_models: [hf:org/repo, nonsense]", "'nonsense' is no model reference; write hf:org/repo"),
        ("rbee_models: [{reference: 'hf:a/b'}]", "{'reference': 'hf:a/b'} is no model reference"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_machines(tmp_path: Path, variable: str, says: str) -> None:
    """The variable, its value, what would be right, and whom it concerns, once for all of them."""
    (found,) = problems(tmp_path, {"group_vars/rbee_hives.yml": variable + "\n"})

    assert says in found
    assert "(h1, h2)" in found


@pytest.mark.parametrize(
    "variable", ["rbee_hive_slots: '{{ 2 * 2 }}'", "rbee_hive_port: '9200'", "rbee_models: [hf:a/b, file:///m.gguf]"]
)
def test_a_value_in_bounds_or_unknown_yet_passes(tmp_path: Path, variable: str) -> None:
    """A number may be a text, and a template is known only when Ansible runs."""
    assert problems(tmp_path, {"group_vars/all.yml": variable + "\n"}) == []


def test_one_machine_twice_is_found(tmp_path: Path) -> None:
    """Two names for one address would be two hives at one port; at another port it is another machine."""
    twice = TWO.replace("10.0.0.2", "10.0.0.1")

    (found,) = problems(tmp_path, {"hosts.yml": twice})

    assert "h1, h2 have the same address, 10.0.0.1 port 22" in found
    assert problems(tmp_path, {"hosts.yml": twice.replace("h2: {", "h2: {ansible_port: 23, ")}) == []


def test_two_queens_are_found(tmp_path: Path) -> None:
    """A fleet has one queen."""
    (found,) = problems(tmp_path, {"queens.yml": "rbee_queen: {hosts: {h1: , h2: }}\n"})

    assert "the group rbee_queen has 2 machines (h1, h2)" in found


def test_machines_that_are_no_hives_are_found(tmp_path: Path) -> None:
    """A group by a name of one's own makes no hives; the one that was probably meant is named."""
    (found,) = problems(tmp_path, {"hosts.yml": TWO.replace("rbee_hives", "hives")})

    assert "no machine is in the group rbee_hives" in found
    assert "Is 'hives' meant to be it?" in found


def test_variables_of_nobody_are_found(tmp_path: Path) -> None:
    """A file of host_vars without its machine is a misspelling or a leftover."""
    (found,) = problems(tmp_path, {"host_vars/h11.yml": "ansible_port: 1\n", "host_vars/h2.yml": "ansible_port: 2\n"})

    assert "host_vars/h11.yml: there is no machine 'h11'; did you mean" in found
