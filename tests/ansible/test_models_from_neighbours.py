"""Models that every hive of an inventory is to have: fetched by one of them, where there is a queen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hub import Hub
from tests.support.machine import Machine
from tests.support.neighbours import Neighbours
from tests.support.queens import machine_with_fake

pytestmark = pytest.mark.process

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
NODES = ("h1", "h2", "h3")


@pytest.fixture(name="hub")
def _hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, write_gguf(tmp_path / "hub.gguf", size=1024 * 1024).read_bytes())
        yield hub


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path / "machine") as machine:
        yield machine


@pytest.fixture(name="fleet")
def _fleet(machine: Machine, hub: Hub) -> Iterator[Neighbours]:
    fleet = Neighbours(machine, hub)
    try:
        for node in NODES:
            fleet.add(node)
        yield fleet
    finally:
        fleet.close()


def play(folder: Path, fleet: Neighbours, machine: Machine, *, told: bool) -> subprocess.CompletedProcess[str]:
    """Run the role for all hives, with the queen of the group rbee_queen, or without one."""
    hosts = {
        node: {"rbee_models_hive_url": hive.url, "rbee_models_api_key": HIVE_KEY} for node, hive in fleet.hives.items()
    }
    queen = {"control": {"ansible_host": "127.0.0.1", "rbee_queen_port": machine.queen_port}} if told else {}
    inventory = {"rbee_queen": {"hosts": queen}, "rbee_hives": {"hosts": hosts}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": inventory}}))
    key = (machine.home / "secrets" / "api-key").read_text().strip()
    extra = {"rbee_models": [f"hf:{REPO}"], "rbee_models_queen_api_key": key}
    playbook = ROOT / "tests/ansible/provide_models.yml"
    command: list[str | Path] = [PLAYBOOK, "-i", folder / "hosts.yml", playbook, "-e", json.dumps(extra)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert key not in done.stdout
    assert HIVE_KEY not in done.stdout
    return done


@pytest.mark.B88
def test_one_hive_of_an_inventory_fetches(fleet: Neighbours, machine: Machine, hub: Hub, tmp_path: Path) -> None:
    """All hives have the model at the end, each has changed, and the hub has sent it once; again, nothing changes."""
    first = play(tmp_path, fleet, machine, told=True)
    second = play(tmp_path, fleet, machine, told=True)

    assert first.returncode == 0, first.stdout
    assert len(hub.downloads(REPO, FILE)) == 1
    assert [path.name for node in NODES for path in fleet.files(node)] == [FILE] * 3
    assert first.stdout.count("changed=1") == 3
    assert second.stdout.count("changed=0") == 3


def test_without_a_queen_each_hive_fetches(fleet: Neighbours, machine: Machine, hub: Hub, tmp_path: Path) -> None:
    """Where no queen is named, or it does not answer, each hive has the model from its origin."""
    done = play(tmp_path, fleet, machine, told=False)

    assert done.returncode == 0, done.stdout
    assert len(hub.downloads(REPO, FILE)) == 3
