"""What an inventory comes to is checked: bounds, addresses, groups, variables of nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.fleet.assets import Assets
from rbee.fleet.file_check import known_variables
from rbee.fleet.inventory import Inventory
from rbee.fleet.machine_check import check_machines

TWO = "rbee_hives:\n  hosts:\n    h1: {ansible_host: 10.0.0.1}\n    h2: {ansible_host: 10.0.0.2}\n"


def problems(folder: Path, files: dict[str, str] | None = None) -> list[str]:
    """Write the files of an inventory, two machines without them, and check it."""
    for name, text in {"hosts.yml": TWO, **(files or {})}.items():
        file = folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return checked(Inventory(folder / "inventory", Paths(folder / "home")))


def checked(inventory: Inventory) -> list[str]:
    """Check the machines of an inventory."""
    return [str(problem) for problem in check_machines(inventory, known_variables(Assets.find()))]


def test_an_inventory_in_order_has_no_problems(tmp_path: Path) -> None:
    """Two machines at two addresses pass, and so does the example that people copy."""
    assert problems(tmp_path) == []
    assert checked(Inventory(Assets.find().root / "inventory" / "example", Paths(tmp_path / "home"))) == []


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("rbee_hive_slots: -3", "rbee_hive_slots must be 1 or more, not -3. (h1, h2)"),
        ("rbee_hive_port: 99999", "rbee_hive_port must be a port from 1 to 65535, not 99999."),
        ("ansible_port: 0", "ansible_port must be a port"),
        ("rbee_state_path: srv/rbee", "rbee_state_path must be an absolute path, not 'srv/rbee'."),
        ("rbee_state_path: /opt/../x", "rbee_state_path must be a path without '..', not '/opt/../x'."),
        ("rbee_install_path: /", "rbee_install_path must be a folder of rbee's own, not '/', which is the system's."),
        ("rbee_state_path: /etc/rbee", "must be a folder of rbee's own"),
        ('rbee_state_path: "/srv/\\0x"', "rbee_state_path must not hold a control character (U+0000)."),
        ("rbee_binary_path: bin/rbee-hive", "rbee_binary_path must be an absolute path"),
        ("rbee_queen_url: 10.0.0.9:8080", "must be an address such as http://192.0.2.10:8080, not '10.0.0.9:8080'."),
        ("rbee_hive_queen_url: ftp://q", "rbee_hive_queen_url must be an address"),
        ("rbee_state_path: /var/lib/", "must be a folder of rbee's own"),
        ("rbee_models: [hf:org/repo, nonsense]", "rbee_models: 'nonsense' is not a model reference: it does not"),
        ("rbee_models: ['hf:a/b@']", "'hf:a/b@' is not a model reference: after org/repo@ comes"),
        ("rbee_models: ['file://srv/m.gguf']", "after two slashes comes the name of a machine, here 'srv'"),
        ("rbee_models: [{reference: 'hf:a/b'}]", "{'reference': 'hf:a/b'} is not a model reference"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_machines(tmp_path: Path, variable: str, says: str) -> None:
    """The variable, its value, what would be right, and whom it concerns, once for all of them."""
    (found,) = problems(tmp_path, {"group_vars/rbee_hives.yml": variable + "\n"})

    assert says in found
    assert "(h1, h2)" in found
    assert "group_vars/rbee_hives.yml:1: " in found


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ("rbee_state_path: /opt/rbee", "rbee_state_path (/opt/rbee) is the same as rbee_install_path (/opt/rbee)"),
        ("rbee_state_path: /opt/rbee/x", "rbee_state_path (/opt/rbee/x) lies in rbee_install_path (/opt/rbee)"),
        ("rbee_install_path: /var/lib/rbee/x", "(/var/lib/rbee) contains rbee_install_path (/var/lib/rbee/x)"),
        (
            "rbee_install_path: /var/lib/rbee-models/x",
            "models' folder of rbee_state_path (/var/lib/rbee-models) contain",
        ),
        ("rbee_checkout_path: /opt/rbee/releases", "rbee_checkout_path (/opt/rbee/releases) lies in rbee_install_path"),
        ("rbee_checkout_path: /var/lib/rbee/co", "rbee_checkout_path (/var/lib/rbee/co) lies in rbee_state_path"),
        ("rbee_checkout_path: /opt", "rbee_checkout_path must be a folder of rbee's own"),
        ("rbee_install_path: /srv/a\nrbee_checkout_path: /srv/a", "rbee_checkout_path (/srv/a) is the same as"),
        ("rbee_hive_state_path: /srv/x", "rbee_state_path (/var/lib/rbee) and rbee_hive_state_path (/srv/x) differ"),
    ],
)
def test_folders_of_roles_lie_apart(tmp_path: Path, variables: str, says: str) -> None:
    """No role's folder is, holds or lies in that of another purpose, and all roles take one for the same purpose."""
    (found,) = problems(tmp_path, {"group_vars/all.yml": variables + "\n"})

    assert says in found
    assert "group_vars/all.yml:" in found


def test_every_wrong_value_is_told_where_it_stands(tmp_path: Path) -> None:
    """Each wrong entry of a list has its own sentence, and a machine's own value the line of its own."""
    everywhere = "rbee_hive_slots: 4\nrbee_models: [one, two]\n"

    found = problems(tmp_path, {"group_vars/all.yml": everywhere, "host_vars/h2.yml": "rbee_hive_slots: 0\n"})

    assert len(found) == 3
    assert [line for line in found if "group_vars/all.yml:2: rbee_models: 'two' is not" in line]
    assert [line for line in found if "host_vars/h2.yml:1: rbee_hive_slots must be 1 or more, not 0. (h2)" in line]


@pytest.mark.parametrize(
    "variable",
    [
        *("rbee_hive_slots: '{{ 2 * 2 }}'", "rbee_hive_port: '9200'", "rbee_state_path: '{{ rbee_install_path }}/x'"),
        *("rbee_models: [hf:a/b, 'hf:a/b@v1:Q8_0/x.gguf', file:///m.gguf, '{{ m }}']", "rbee_queen_url: ''"),
        *(
            "rbee_checkout_path: /opt/rbee/src",
            "rbee_hive_checkout_path: ''",
            "rbee_hive_binary_path: ''",
            "rbee_queen_state_path: /srv/queen",
        ),
        *("rbee_queen_url: http://[fd00::1]:8080", "rbee_state_path: /opt/rbee-state/"),
    ],
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


@pytest.mark.parametrize(
    ("group", "meant"), [("hives", "rbee_hives"), ("hive", "rbee_hives"), ("queens", "rbee_queen"), ("office", None)]
)
def test_machines_in_a_group_of_almost_our_name_are_found(tmp_path: Path, group: str, meant: str | None) -> None:
    """Machines that are none of rbee's are let be, unless their group is called almost like one of ours."""
    found = problems(tmp_path, {"more.yml": f"{group}: {{hosts: {{x1: , x2: }}}}\n"})

    wanted = [f"the group '{group}' (x1, x2) is none of rbee's; is '{meant}' meant, or a group in it?"]
    assert [problem.partition(": ")[2] for problem in found] == (wanted if meant else [])
    assert problems(tmp_path, {"more.yml": f"rbee_hives: {{children: {{{group}: {{hosts: {{x1: }}}}}}}}\n"}) == []


def test_a_misspelt_variable_of_another_format_is_found(tmp_path: Path) -> None:
    """What stands in INI is checked as Ansible reads it; what stands in YAML is left to the check of the files."""
    ini = "[rbee_hives]\nx1 ansible_host=10.0.0.8 rbee_hive_prot=1\n[rbee_hives:vars]\nrbee_hive_slots=0\n"

    found = problems(tmp_path, {"more.ini": ini, "host_vars/h1.yml": "rbee_hive_solts: 1\n"})

    assert len(found) == 2
    assert "rbee_hive_slots must be 1 or more, not 0. (" in found[0]
    assert found[1].endswith("unknown variable 'rbee_hive_prot'; did you mean 'rbee_hive_port'? (x1)")


def test_variables_of_nobody_are_found(tmp_path: Path) -> None:
    """A file of host_vars without its machine is a misspelling or a leftover."""
    (found,) = problems(tmp_path, {"host_vars/h11.yml": "ansible_port: 1\n", "host_vars/h2.yml": "ansible_port: 2\n"})

    assert "host_vars/h11.yml: there is no machine 'h11'; did you mean" in found
