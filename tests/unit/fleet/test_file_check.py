"""The check of an inventory: what is misspelt or of the wrong kind, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.fleet.assets import Assets
from rbee.fleet.file_check import FLEET, check_files
from rbee.fleet.inventory import Inventory


def problems(folder: Path, place: str, text: str) -> list[str]:
    """Check an inventory with one file, and give what is wrong relative to its folder."""
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    inventory = Inventory(folder, Paths(folder / "home"))
    return [str(problem).removeprefix(f"{folder}/") for problem in check_files(inventory, Assets.find())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rbee_hive_prot: 9200\n", "unknown variable 'rbee_hive_prot'; did you mean 'rbee_hive_port'?"),
        ("rbee_hive_drain_s: 9\n", "unknown variable 'rbee_hive_drain_s'; did you mean 'rbee_queen_drain_timeout_s'?"),
        (
            "rbee_hive_cache_type: q8_0\n",
            "unknown variable 'rbee_hive_cache_type'; settings without a variable of their own stand in "
            "rbee_hive_settings.",
        ),
        ("rbee_modles: []\n", "unknown variable 'rbee_modles'; did you mean 'rbee_models'?"),
        ("ansible_usr: me\n", "unknown variable 'ansible_usr'; did you mean 'ansible_user'?"),
        ("rbee_hive_slots: four\n", "rbee_hive_slots must be a whole number, not 'four'."),
        ("rbee_hive_slots: true\n", "rbee_hive_slots must be a whole number, not True."),
        ("rbee_models: demo\n", "rbee_models must be a list, not 'demo'."),
        (
            "rbee_build_on: hots\n",
            "rbee_build_on must be one of controller, host, auto, not 'hots'. Did you mean 'host'?",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_a_suggestion(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake in group_vars is told with file, line and the next right spelling."""
    assert problems(tmp_path, "group_vars/all/rbee.yml", f"---\n{text}") == [f"group_vars/all/rbee.yml:2: {said}"]


@pytest.mark.parametrize(
    "text",
    [
        "rbee_hive_port: '{{ 9000 + 200 }}'\n",
        "rbee_hive_api_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n",
        "ansible_ssh_extra_args: -v\n",
        "my_own: thing\n",
        "rbee_hive_idle_timeout_s: 20\n",
    ],
)
def test_what_only_ansible_can_know_is_left_alone(tmp_path: Path, text: str) -> None:
    """A template, an encrypted value and other people's variables are not judged."""
    assert problems(tmp_path, "group_vars/rbee_hives.yml", text) == []


def test_the_hosts_file_is_checked_too(tmp_path: Path) -> None:
    """A misspelt group, a misspelt part of a group and a misspelt variable of a host are told with their lines."""
    text = "all:\n  children:\n    rbee_hivs:\n      host:\n      hosts:\n        h1:\n          rbee_hive_prt: 1\n"

    found = problems(tmp_path, "hosts.yml", text)

    assert [line.split(" ")[0] for line in found] == ["hosts.yml:3:", "hosts.yml:4:", "hosts.yml:7:"]


def test_a_broken_file_hides_no_other(tmp_path: Path) -> None:
    """A file that is not YAML is told with its line, and what is wrong in the others too."""
    problems(tmp_path, "group_vars/all.yml", 'a: 1\nb: "x\0y"\n')
    problems(tmp_path, "host_vars/h2.yml", "a: [\n")

    found = problems(tmp_path, "host_vars/h1.yml", "rbee_hive_prot: 1\n")

    assert [line.partition(" ")[0] for line in found] == [
        *("group_vars/all.yml:2:", "host_vars/h1.yml:1:", "host_vars/h2.yml:2:")
    ]
    assert "it holds the character U+0000" in found[0]


def test_the_example_is_right(tmp_path: Path) -> None:
    """The inventory to copy passes its own check."""
    assets = Assets.find()

    assert check_files(Inventory(assets.root / "inventory" / "example", Paths(tmp_path)), assets) == []


def test_every_fleet_wide_variable_is_explained() -> None:
    """What may be set for the whole fleet stands in the inventory's README."""
    readme = (Assets.find().root / "inventory" / "README.md").read_text()

    assert [name for name in FLEET if f"`{name}`" not in readme] == []
