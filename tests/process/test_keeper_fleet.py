"""The keeper, the inventory and a queen that runs: who is registered, and where the queen itself belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.client.queen import QueenClient
from rbee.config.credentials import new_key, store_key
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    machine.configure("worker", engine="fake")
    yield machine
    machine.close()


def write_inventory(machine: Machine, *, queen: dict[str, object] | None = None) -> Path:
    """Write an inventory of two hives and return its file; only h1 has a hive by now."""
    hives = {name: {"ansible_host": "127.0.0.1", "rbee_hive_port": 1, "ansible_port": port} for name, port in HIVES}
    for variables in hives.values():
        variables["rbee_repo_url"] = "https://example.org/rbee.git"
    groups = {"rbee_queen": {"hosts": queen or {}}, "rbee_hives": {"hosts": hives}}
    file = machine.home / "inventory" / "hosts.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"all": {"children": groups}}, indent=2))
    (machine.home / "secrets" / "hives").mkdir(mode=0o700, parents=True, exist_ok=True)
    store_key(machine.home / "secrets" / "hives" / "h1", new_key(), replace=True)
    return file


HIVES = (("h1", 22), ("h2", 23))


def test_infer_registers_what_a_running_queen_does_not_know(machine: Machine) -> None:
    """A machine that was installed since the queen started is registered; one that has no hive is not."""
    assert machine.run("rbee-keeper", "daemon", "start").code == 0
    write_inventory(machine)
    model = f"file://{write_gguf(machine.root / 'tiny.gguf')}"

    answered = machine.run("rbee-keeper", "infer", "--model", model, "--prompt", "hello", "--max-tokens", "2")

    assert answered.code == 0, answered
    assert "Registered h1 from the inventory" in answered.stderr
    key = (machine.home / "secrets" / "api-key").read_text().strip()
    nodes = QueenClient(f"http://127.0.0.1:{machine.queen_port}", key).nodes()
    assert [node["node_name"] for node in nodes] == ["h1"]


def test_a_fleet_has_one_queen_and_the_inventory_says_where(machine: Machine) -> None:
    """Nobody in its group, somebody else in it, and somebody not in it yet each have their own next step."""
    write_inventory(machine)
    nowhere = machine.run("rbee-keeper", "queen", "status")
    not_yet = machine.run("rbee-keeper", "queen", "install", "--node", "h2", "--check")
    write_inventory(machine, queen={"h1": None})
    elsewhere = machine.run("rbee-keeper", "queen", "install", "--node", "h2")
    shown = machine.run("rbee-keeper", "queen", "uninstall", "--show-command")

    assert "queen install --node NAME" in nowhere.stderr
    assert "rbee-keeper queen install --node h2" in not_yet.stderr
    assert "a fleet has one queen" in elsewhere.stderr
    assert [nowhere.code, not_yet.code, elsewhere.code] == [1, 1, 1]
    assert "playbooks/remove-queen.yml --limit h1 -e rbee_queen_remove_confirmed=true" in shown.stdout


def test_a_removal_asks_a_terminal(machine: Machine) -> None:
    """A script that removes a queen has to say that it means it."""
    write_inventory(machine, queen={"h1": None})

    refused = machine.run("rbee-keeper", "queen", "uninstall")

    assert refused.code == 2
    assert "the queen of h1 with its registry" in refused.stderr
    assert "--yes" in refused.stderr
