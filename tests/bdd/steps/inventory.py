"""An inventory as its operator wrote it: what the keeper sees of it, and what an edit leaves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then

from tests.support.commands import Result
from tests.support.machine import BIN, Machine


@pytest.fixture
def written() -> dict[str, bytes]:
    """Give the files of the inventory as they were written, by name."""
    return {}


def folder(machine: Machine) -> Path:
    """Return where the machine's operator has the inventory."""
    return machine.home / "inventory"


@given(parsers.parse('the inventory has the file "{name}"'))
def has_file(machine: Machine, written: dict[str, bytes], name: str, docstring: str) -> None:
    write(machine, written, name, f"{docstring}\n")


@given(parsers.parse('the inventory has the file "{name}" with the line ends of Windows'))
def has_file_of_windows(machine: Machine, written: dict[str, bytes], name: str, docstring: str) -> None:
    write(machine, written, name, f"{docstring}\n".replace("\n", "\r\n"))


def write(machine: Machine, written: dict[str, bytes], name: str, text: str) -> None:
    """Write one file and note it."""
    file = folder(machine) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    written[name] = text.encode()
    file.write_bytes(written[name])


@then("the keeper lists the machines that Ansible has in rbee_hives, at these addresses")
def as_ansible_has_them(machine: Machine, result: Result, datatable: list[list[str]]) -> None:
    asked = subprocess.run(
        [BIN / "ansible-inventory", "-i", folder(machine), "--graph", "rbee_hives"],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    graph = [line.lstrip(" |-") for line in asked.stdout.splitlines()]
    addresses = {row["node_name"]: row["ssh_host"] for row in json.loads(result.stdout)["beehives"]}

    assert sorted(addresses) == sorted(name for name in graph if not name.startswith("@"))
    assert addresses == dict(datatable[1:])


@then(parsers.parse('only these lines of "{name}" are gone'))
def only_gone(machine: Machine, written: dict[str, bytes], name: str, docstring: str) -> None:
    gone = [line.strip().encode() for line in docstring.splitlines()]
    kept = [line for line in written[name].split(b"\r\n") if line.strip() not in gone]

    assert (folder(machine) / name).read_bytes() == b"\r\n".join(kept)


@then(parsers.parse('the file "{name}" of the inventory is as before'))
def as_before(machine: Machine, written: dict[str, bytes], name: str) -> None:
    assert (folder(machine) / name).read_bytes() == written[name]
