"""An installation ends with the queen: it must know the hive and reach it, or the reason is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.machine import Machine, free_ports
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import slowness

pytestmark = pytest.mark.process

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


@pytest.fixture(name="machine", scope="module")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine_with_fake(tmp_path_factory.mktemp("machine")) as machine:
        machine.configure("queen", local_hive=False)
        yield machine


@pytest.fixture(name="queen", scope="module")
def _queen(machine: Machine) -> QueenProcess:
    return QueenProcess(machine)


def play(folder: Path, *, queen_port: int, key: str, hive_port: int) -> subprocess.CompletedProcess[str]:
    """Register a hive with the queen that the group rbee_queen names, as the role does at its end."""
    inventory = {
        "rbee_queen": {"hosts": {"control": {"ansible_host": "127.0.0.1", "rbee_queen_port": queen_port}}},
        "rbee_hives": {"hosts": {"attic": {"ansible_host": "127.0.0.1"}}},
    }
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": inventory}}))
    extra = {"rbee_hive_api_key": HIVE_KEY, "rbee_hive_queen_api_key": key, "rbee_hive_port": hive_port}
    command: list[str | Path] = [
        PLAYBOOK,
        "-i",
        folder / "hosts.yml",
        ROOT / "tests/ansible/register.yml",
        "-e",
        json.dumps(extra),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def key_of(machine: Machine) -> str:
    """Return the key that opens the queen."""
    return (machine.home / "secrets" / "api-key").read_text().strip()


def test_a_hive_is_registered_with_the_queen_of_its_group(
    machine: Machine, queen: QueenProcess, tmp_path: Path
) -> None:
    """Without rbee_queen_url the inventory itself says which the queen is, and it is connected at the end."""
    hive = HiveProcess(tmp_path / "hive")
    try:
        done = play(tmp_path, queen_port=machine.queen_port, key=key_of(machine), hive_port=hive.port)

        assert done.returncode == 0, done.stdout
        assert "changed=0" in done.stdout
        (row,) = queen.get("/v2/hives/list")["hives"]
        assert (row["node"], row["connected"]) == ("attic", True)
    finally:
        hive.close()


def test_a_hive_that_the_queen_cannot_reach_is_one_error_with_its_address(
    machine: Machine, queen: QueenProcess, tmp_path: Path
) -> None:
    """A closed port is told within 15 s, with address, port and reason, and no key is in the output."""
    assert queen.pid
    (closed,) = free_ports(1)
    began = time.monotonic()

    done = play(tmp_path, queen_port=machine.queen_port, key=key_of(machine), hive_port=closed)

    assert time.monotonic() - began < 25 * slowness()
    assert done.returncode == 2
    assert f"CONNECTION_TIMEOUT: attic serves, but the queen at http://127.0.0.1:{machine.queen_port}" in done.stdout
    assert f"cannot connect to it at 127.0.0.1 port {closed}: " in done.stdout
    assert "no reason is known" not in done.stdout
    assert key_of(machine) not in done.stdout
    assert HIVE_KEY not in done.stdout


@pytest.mark.parametrize(
    ("right_port", "key", "says"),
    [
        (True, "wrong", "INVALID_API_KEY: the queen at"),
        (False, "any", "CONNECTION_TIMEOUT: attic serves, but no queen is told"),
    ],
)
def test_a_queen_that_is_not_ours_or_not_there_is_told(
    machine: Machine, queen: QueenProcess, tmp_path: Path, key: str, says: str, *, right_port: bool
) -> None:
    """Whoever has no queen to tell learns which one was asked, and how to get one."""
    assert queen.pid
    port = machine.queen_port if right_port else free_ports(1)[0]

    done = play(tmp_path, queen_port=port, key=key, hive_port=9200)

    assert done.returncode == 2
    assert says in done.stdout
    assert f"http://127.0.0.1:{port}" in done.stdout
