"""Inventories as people write them: the keeper sees the machines and values that Ansible sees."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from rbee.config.paths import Paths
from rbee.errors import ConfigError
from rbee.fleet.inventory import Inventory, Node


class Case(NamedTuple):
    """The files of an inventory, and the hives that it has, each with what is expected of it."""

    files: dict[str, str]
    hives: dict[str, dict[str, object]]
    source: str = ""


def hives(text: str) -> str:
    """Return a hosts file with *text* as the machines of the hives."""
    lines = "".join(f"        {line}\n" for line in text.splitlines())
    return "all:\n  children:\n    rbee_hives:\n      hosts:\n" + lines


CASES = {
    "a range": Case({"hosts.yml": hives("h[1:3]:")}, {"h1": {}, "h2": {}, "h3": {}}),
    "a range with a step and zeros": Case({"hosts.yml": hives("h[01:05:2]:")}, {"h01": {}, "h03": {}, "h05": {}}),
    "a range of letters": Case({"hosts.yml": hives("h-[a:c]:")}, {"h-a": {}, "h-b": {}, "h-c": {}}),
    "a range with variables": Case(
        {"hosts.yml": hives("h[1:2]:\n  ansible_user: me")}, {"h1": {"user": "me"}, "h2": {"user": "me"}}
    ),
    "a merge key": Case(
        {"hosts.yml": "x: {vars: &v {ansible_user: me, ansible_port: 2222}}\n" + hives("h1:\n  <<: *v")},
        {"h1": {"user": "me", "port": 2222}},
    ),
    "an alias": Case(
        {"hosts.yml": hives("a: &a\n  ansible_host: 10.0.0.1\nb: *a")},
        {"a": {"host": "10.0.0.1"}, "b": {"host": "10.0.0.1"}},
    ),
    "a templated address": Case(
        {"hosts.yml": hives("h1:\n  net: 10.0.0\n  ansible_host: '{{ net }}.{{ 3 + 4 }}'")},
        {"h1": {"host": "10.0.0.7"}},
    ),
    "a template of the name": Case(
        {"hosts.yml": hives("h1:\n  ansible_host: '{{ inventory_hostname }}.lan'")}, {"h1": {"host": "h1.lan"}}
    ),
    "a templated port from a group": Case(
        {"hosts.yml": hives("h1:"), "group_vars/all.yml": "base: 22\nansible_port: '{{ base | int * 100 }}'\n"},
        {"h1": {"port": 2200}},
    ),
    "the older names of variables": Case(
        {"hosts.yml": hives("h1:\n  ansible_ssh_host: 10.0.0.1\n  ansible_ssh_port: 23\n  ansible_ssh_user: me")},
        {"h1": {"host": "10.0.0.1", "port": 23, "user": "me"}},
    ),
    "the short name of the key": Case(
        {"hosts.yml": hives("h1:\n  ansible_private_key_file: /k")}, {"h1": {"key_path": "/k"}}
    ),
    "both names of the address": Case(
        {"hosts.yml": hives("h1:\n  ansible_host: 10.0.0.1\n  ansible_ssh_host: 10.0.0.2")},
        {"h1": {"host": "10.0.0.2"}},
    ),
    "groups of groups": Case(
        {"hosts.yml": "rbee_hives:\n  children:\n    gpu:\n      hosts:\n        g1:\n        g2:\n"},
        {"g1": {"groups": ("rbee_hives", "gpu")}, "g2": {}},
    ),
    "a group that is filled elsewhere": Case(
        {"hosts.yml": "rbee_hives:\n  children: {gpu: }\ngpu:\n  hosts: {g1: {ansible_port: 5}}\n"}, {"g1": {"port": 5}}
    ),
    "a group without all": Case({"hosts.yml": "rbee_hives:\n  hosts:\n    h1:\n"}, {"h1": {}}),
    "INI": Case(
        {
            "hosts": "[rbee_hives]\nh1 ansible_host=10.0.0.1 ansible_port=22\nh[2:3]\n"
            "[rbee_hives:vars]\nansible_user=me\n"
        },
        {"h1": {"host": "10.0.0.1", "port": 22, "user": "me"}, "h2": {"user": "me"}, "h3": {}},
    ),
    "INI as the only file": Case({"fleet": "[rbee_hives]\nh1\n"}, {"h1": {}}, "fleet"),
    "JSON": Case({"hosts.json": '{"rbee_hives": {"hosts": {"h1": {"ansible_port": 7}}}}'}, {"h1": {"port": 7}}),
    "several files": Case(
        {
            "10-a.yml": "rbee_hives: {hosts: {a: }}\n",
            "20-b": "[rbee_hives]\nb\n",
            "30-c.yml": "rbee_hives: {hosts: {c: }}\n",
        },
        {"a": {}, "b": {}, "c": {}},
    ),
    "a machine in two files": Case(
        {
            "1.yml": "rbee_hives: {hosts: {a: {ansible_port: 1}}}\n",
            "2.yml": "rbee_hives: {hosts: {a: {ansible_user: me}}}\n",
        },
        {"a": {"port": 1, "user": "me"}},
    ),
    "a folder without hosts.yml": Case({"fleet.yaml": "rbee_hives: {hosts: {h1: }}\n"}, {"h1": {}}),
    "notes beside the sources": Case({"hosts.yml": hives("h1:"), "README.md": "no: [machine"}, {"h1": {}}),
    "variables of a group as JSON": Case(
        {"hosts.yml": hives("h1:"), "group_vars/rbee_hives.json": '{"ansible_user": "me"}'}, {"h1": {"user": "me"}}
    ),
    "a folder of variables": Case(
        {
            "hosts.yml": hives("h1:"),
            "group_vars/all/a.yml": "ansible_user: a\n",
            "group_vars/all/b.yml": "ansible_port: 9\n",
        },
        {"h1": {"user": "a", "port": 9}},
    ),
    "variables of a machine": Case(
        {"hosts.yml": hives("h1:\n  ansible_port: 1"), "host_vars/h1": "ansible_port: 2\n"}, {"h1": {"port": 2}}
    ),
    "priority of groups": Case(
        {
            "hosts.yml": "rbee_hives:\n  hosts: {h1: }\n  vars: {ansible_user: hive, ansible_group_priority: 10}\n"
            "slow:\n  hosts: {h1: }\n  vars: {ansible_user: slow}\n"
        },
        {"h1": {"user": "hive"}},
    ),
    "machines that are no hives": Case({"hosts.yml": hives("h1:") + "other:\n  hosts: {x: }\n"}, {"h1": {}}),
    "no machines yet": Case({"hosts.yml": hives("# none")}, {}),
    "a port as text": Case({"hosts.yml": hives("h1:\n  ansible_port: '2222'")}, {"h1": {"port": 2222}}),
    "ends of lines of Windows": Case(
        {"hosts.yml": hives("h1:\n  ansible_port: 3").replace("\n", "\r\n")}, {"h1": {"port": 3}}
    ),
    "a quoted number as a name": Case({"hosts.yml": hives("'7':")}, {"7": {}}),
}

REFUSED = {
    "a number as a name": ({"hosts.yml": hives("7:")}, "must be a string"),
    "a truth value as a name": ({"hosts.yml": hives("yes:")}, "must be a string"),
    "hosts as a list": ({"hosts.yml": "rbee_hives:\n  hosts: [h1, h2]\n"}, "refused by Ansible"),
    "a list for variables": ({"hosts.yml": hives("h1: [x]")}, "dictionary"),
    "a circle of groups": ({"hosts.yml": "a: {children: {b: }}\nb: {children: {a: }}\n"}, "refused by Ansible"),
    "a byte that is no text": ({"hosts.yml": "rbee_hives:\n  hosts:\n    h1: \x00\n"}, "refused by Ansible"),
    "a template of nothing": ({"hosts.yml": hives("h1:\n  ansible_host: '{{ nothing }}'")}, "nothing"),
    "no YAML": ({"hosts.yml": "rbee_hives: [\n"}, "refused by Ansible"),
    "a range without end": ({"hosts.yml": hives("h[a:3]:")}, "refused by Ansible"),
    "a vault": ({"hosts.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162\n"}, "refused by Ansible"),
}


def written(folder: Path, files: dict[str, str], source: str = "") -> Inventory:
    """Write the files of an inventory."""
    for name, text in files.items():
        file = folder / "inventory" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    return Inventory(folder / "inventory" / source, Paths(folder / "home"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_hives_are_those_of_ansible(tmp_path: Path, case: Case) -> None:
    """Names, order and values are Ansible's, whatever the inventory is written in."""
    nodes = written(tmp_path, case.files, case.source).nodes()

    assert [node.name for node in nodes] == list(case.hives)
    for node in nodes:
        expected = case.hives[node.name]
        assert {name: getattr(node, name) for name in expected} == expected


@pytest.mark.parametrize(("files", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_ansible_refuses_is_refused_with_its_reason(tmp_path: Path, files: dict[str, str], says: str) -> None:
    """No inventory is a bug of ours: the error names the inventory, Ansible's reason and a next step."""
    inventory = written(tmp_path, files)

    with pytest.raises(ConfigError, match=says) as raised:
        inventory.nodes()

    assert str(inventory.path) in raised.value.message
    assert raised.value.hint


def test_what_ansible_said_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look asks no Ansible; a changed file does, and so does another environment of Ansible."""
    inventory = written(tmp_path, {"hosts.yml": hives("h1:")})
    assert [node.name for node in inventory.nodes()] == ["h1"]
    asked: list[str] = []

    def ask(source: Path, _paths: Paths) -> str:
        asked.append(str(source))
        return '{"_meta": {"hostvars": {}}}'

    monkeypatch.setattr("rbee.fleet.ansible_inventory._ask", ask)

    assert [node.name for node in inventory.nodes()] == ["h1"]
    assert asked == []
    inventory.file.write_text(hives("h1:\nh2:"))
    inventory.nodes()
    assert len(asked) == 1
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/x")
    inventory.nodes()
    assert len(asked) == 2


def test_a_source_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that does not end is ended, and the error says which inventory and how to look at it."""
    inventory = written(tmp_path, {"dynamic": "#!/bin/sh\nexec tail -f /dev/null\n"}, "dynamic")
    inventory.path.chmod(0o755)
    monkeypatch.setattr("rbee.fleet.ansible_inventory._WITHIN_S", 3.0)

    with pytest.raises(ConfigError, match="within 3 s") as raised:
        inventory.nodes()

    assert f"ansible-inventory -i {inventory.path} --list" in str(raised.value.hint)


def test_what_a_lookup_gives_is_asked_for_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that reads the environment or a file elsewhere may change without a file of the inventory."""
    text = hives("h1:\n  where: \"{{ lookup('env', 'RBEE_TEST_ADDRESS') }}\"\n  ansible_host: '{{ where }}'")
    inventory = written(tmp_path, {"hosts.yml": text})

    for address in ("10.0.0.1", "10.0.0.2"):
        monkeypatch.setenv("RBEE_TEST_ADDRESS", address)
        assert inventory.require("h1").host == address


def test_a_secret_of_the_inventory_is_written_nowhere_else(tmp_path: Path) -> None:
    """Where a variable is a secret nothing is kept, and the key is still read."""
    inventory = written(tmp_path, {"hosts.yml": hives("h1:\n  rbee_hive_api_key: very-secret")})

    assert inventory.require("h1").variables["rbee_hive_api_key"] == "very-secret"

    files = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert "very-secret" not in "".join(file.read_text(errors="replace") for file in files)


PORT = "ansible_port: 3"
EDITS = {
    "ends of lines of Windows": (hives(f"h1:\n  {PORT}").replace("\n", "\r\n"), PORT, "ansible_port: 4"),
    "an odd space in a comment": (hives(f"h1:  # a\u00a0b\n  {PORT}"), PORT, "ansible_port: 4"),
    "a separator of lines in a text": (hives(f'h1:\n  note: "a\u2028b"\n  {PORT}'), PORT, "ansible_port: 4"),
    "a comment behind the value": (hives(f"h1:\n  {PORT}  # no 4"), f"{PORT}  #", "ansible_port: 4  #"),
    "the older name": (hives("h1:\n  ansible_ssh_port: 3"), "ansible_ssh_port: 3", "ansible_ssh_port: 4"),
    "quotes": (hives("h1:\n  ansible_port: '3'"), "ansible_port: '3'", "ansible_port: 4"),
    "an empty value": (hives("h1:\n  ansible_port:\nh2:"), "ansible_port:", "ansible_port: 4"),
    "an anchor of its own": (hives(f"h1: &h\n  {PORT}"), PORT, "ansible_port: 4"),
    "a merge key beside": (hives(f"h0: &h\n  ansible_user: me\nh1:\n  <<: *h\n  {PORT}"), PORT, "ansible_port: 4"),
    "the same variable elsewhere": (
        hives(f"h1:\n  {PORT}") + f"      vars:\n        {PORT}\n",
        f"          {PORT}",
        "          ansible_port: 4",
    ),
}


@pytest.mark.parametrize(("text", "old", "new"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_changes_its_value_and_nothing_else(tmp_path: Path, text: str, old: str, new: str) -> None:
    """One value changes, in place; every other byte stays, ends of lines and odd characters included."""
    inventory = written(tmp_path, {"hosts.yml": text})
    assert text.count(old) == 1

    inventory.put(Node("h1", port=4), replace=True)

    assert inventory.file.read_bytes().decode() == text.replace(old, new)


LEFT_TO_PEOPLE = {
    "an alias of another machine": (hives(f"a: &a\n  {PORT}\nb: *a"), 7),
    "an alias as the value": (hives("a:\n  ansible_port: &p 3\nb:\n  ansible_port: *p"), 8),
    "an anchor that another one uses": (hives("b:\n  ansible_port: &p 3\nc:\n  ansible_port: *p"), 6),
    "flow style": (hives("b: {ansible_user: me}"), 5),
    "a block of text": (hives("b:\n  ansible_port: |\n    3"), 6),
    "an alias of itself": (hives("b: &b\n  x: *b"), 5),
    "nothing but a zero byte": ("all: \x00\n", 1),
    "brackets without end": (f"a: {'[' * 3000}{']' * 3000}\n", None),
    "aliases of aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 9)),
        1,
    ),
}


@pytest.mark.parametrize(("text", "line"), LEFT_TO_PEOPLE.values(), ids=LEFT_TO_PEOPLE.keys())
def test_what_cannot_be_edited_safely_is_left_to_people(tmp_path: Path, text: str, line: int | None) -> None:
    """An edit that would change something else is refused with the line, and the file stays as it was."""
    inventory = written(tmp_path, {"hosts.yml": text})

    with pytest.raises(ConfigError) as raised:
        inventory.put(Node("b", port=4), replace=True)

    assert raised.value.line == line
    assert inventory.file.read_text() == text


def test_a_machine_that_is_an_alias_is_removed_and_its_anchor_is_not(tmp_path: Path) -> None:
    """`b: *a` goes as one line; `a: &a`, which b needs, is refused with its line."""
    text = hives(f"a: &a\n  {PORT}\nb: *a\nc:")
    inventory = written(tmp_path, {"hosts.yml": text})

    with pytest.raises(ConfigError) as raised:
        inventory.remove("a")
    assert raised.value.line == 5

    assert inventory.remove("b")
    assert inventory.file.read_text() == text.replace("        b: *a\n", "")
    assert inventory.remove("a")


@pytest.mark.parametrize("files", [{"hosts.yml": hives("h[1:3]:")}, {"hosts": "[rbee_hives]\nh2\n"}])
def test_a_machine_of_a_range_or_another_source_is_removed_by_people(tmp_path: Path, files: dict[str, str]) -> None:
    """What does not stand in the hosts file by its own name is named, and nothing is said to be removed."""
    inventory = written(tmp_path, files)

    with pytest.raises(ConfigError, match="by hand"):
        inventory.remove("h2")


def test_an_inventory_that_is_not_yaml_is_edited_by_people(tmp_path: Path) -> None:
    """A file of INI is refused for edits, and stays as it was."""
    inventory = written(tmp_path, {"my.ini": "[rbee_hives]\nh1\n"})
    inventory = Inventory(inventory.path / "my.ini", Paths(tmp_path / "home"))

    with pytest.raises(ConfigError, match="by hand"):
        inventory.put(Node("h2", host="10.0.0.2"), replace=False)

    assert inventory.path.read_text() == "[rbee_hives]\nh1\n"
