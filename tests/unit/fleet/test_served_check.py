"""What an inventory declares to be served is checked before any machine is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.config.paths import Paths
from rbee.fleet.inventory import Inventory
from rbee.fleet.served_check import check_served

HOSTS = """\
all:
  children:
    rbee_queen:
      hosts: {control: }
    rbee_hives:
      hosts: {attic: , cellar: }
    gpu:
      hosts: {attic: }
    desks:
      hosts: {desk: }
"""


def problems(folder: Path, declared: str, hosts: str = HOSTS, variable: str = "rbee_served_models") -> list[str]:
    """Check an inventory whose file of variables for all has this list, without the paths of its files."""
    inventory = folder / "inventory"
    (inventory / "group_vars").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.yml").write_text(hosts)
    (inventory / "group_vars" / "all.yml").write_text(f"{variable}:\n{declared}")
    found = check_served(Inventory(inventory, Paths(folder / "home")))
    return [str(problem).replace(f"{inventory}/group_vars/", "") for problem in found]


def test_what_is_right_has_no_problems(tmp_path: Path) -> None:
    """Machines, groups with a hive, an alias, presets, empty keys, and what has its value only when Ansible runs."""
    declared = """\
  - name: chat
    model: hf:org/repo:Q4_K_M
    replicas: 1
    keep: 2h
    slots:
    where: {groups: [gpu], nodes: [cellar], backend: cuda}
    presets: {chat-exact: {temperature: 0}}
    fallback: [small]
  - {name: small, model: demo}
  - "{{ others }}"
"""
    assert problems(tmp_path, declared) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("modl: demo", "3: rbee_served_models: chat: unknown key 'modl'; did you mean 'model'?"),
        ("model: dmo", "3: rbee_served_models: chat: model: 'dmo' is not a model reference"),
        ("model: demo\n    replicas: 65", "4: rbee_served_models: chat: replicas: Input should be less than or equal"),
        ("model: demo\n    keep: soon", "4: rbee_served_models: chat: keep: 'soon' is no time"),
        ("model: demo\n    lora: [x]", "4: rbee_served_models: chat: 'lora' (LoRA adapters) is not built yet"),
        ("model: demo\n    presets:\n      a: {top_p: 2}", "5: rbee_served_models: chat: presets.a.top_p: Input"),
        (
            "model: demo\n    where:\n      nodes: [atic]",
            "no machine of rbee_hives is named 'atic'; did you mean 'attic'?",
        ),
        (
            "model: demo\n    where:\n      nodes: [desk]",
            "5: rbee_served_models: chat: no machine of rbee_hives is named",
        ),
        (
            "model: demo\n    where:\n      groups: [gpus]",
            "5: rbee_served_models: chat: the group 'gpus' does not exist; d",
        ),
        (
            "model: demo\n    where:\n      groups: [desks]",
            "5: rbee_served_models: chat: the group 'desks' has no hive",
        ),
        ("model: demo\n    where:\n      group: [gpu]", "5: rbee_served_models: chat: unknown key 'group' in 'where'"),
        (
            "model: demo\n    fallback: [chatt]",
            "2: rbee_served_models: chat falls back to chatt, which is not declared.",
        ),
        ("model: demo\n  - {name: chat, model: demo}", "4: rbee_served_models: the name chat is declared twice"),
        ("model: demo\n  - {model: demo}", "4: rbee_served_models: each model is a mapping with a 'name'."),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, lines: str, expected: str) -> None:
    """The variable, the model, the key, and what was probably meant, on the line of the key."""
    found = "\n".join(problems(tmp_path, f"  - name: chat\n    {lines}\n"))

    assert expected in found


def test_a_list_that_no_queen_reads_is_told(tmp_path: Path) -> None:
    """Without a machine in the group of the queen the config file of the queen is the place."""
    (found,) = problems(tmp_path, "  - {name: a, model: demo}\n", "rbee_hives: {hosts: {attic: }}\n")

    assert "no machine is in the group rbee_queen" in found
    assert "[served.NAME]" in found


def test_a_queen_with_a_hive_of_its_own_has_a_node_more(tmp_path: Path) -> None:
    """localhost is a machine for declarations where the queen runs a hive."""
    declared = "  - {name: a, model: demo, where: {nodes: [localhost]}}\n"

    (found,) = problems(tmp_path, declared, variable="rbee_queen_served_models")
    assert "rbee_queen_served_models: a: no machine of rbee_hives is named 'localhost'" in found
    assert problems(tmp_path, declared + "rbee_queen_local_hive: true\n") == []
