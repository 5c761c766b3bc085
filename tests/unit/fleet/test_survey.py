"""What a survey makes of a machine, and that it leaves the inventory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee.config.paths import Paths
from rbee.contracts.devices import Backend
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.report import HostReport
from rbee.fleet.survey import findings, trial

HOSTS = "# mine\nall:\n  children:\n    rbee_hives:\n      hosts:\n        h1:\n"


@pytest.mark.parametrize(
    ("machine", "devices"),
    [
        ({"system": "linux", "machine": "x86_64"}, {Backend.CPU: 1}),
        ({"system": "linux", "cuda": {"devices": ["A", "B"]}}, {Backend.CUDA: 2, Backend.CPU: 1}),
        ({"system": "darwin", "machine": "arm64"}, {Backend.METAL: 1, Backend.CPU: 1}),
    ],
    ids=["cpu", "two GPUs", "a Mac"],
)
def test_devices_are_counted_the_best_backend_first(machine: dict[str, Any], devices: dict[Backend, int]) -> None:
    """The CPU is always there and comes last."""
    found = findings(HostReport("h1", facts={"rbee_machine": machine}))

    assert found is not None
    assert found.devices == devices
    assert found.backends == list(devices)


def test_nothing_is_made_up_about_a_machine_that_nobody_saw() -> None:
    """A run that never reached it has no findings."""
    assert findings(HostReport("h1")) is None


def test_a_trial_has_the_machine_and_the_groups_and_changes_nothing(tmp_path: Path) -> None:
    """The copy knows the new machine with its groups' variables; the original is as it was."""
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "group_vars" / "all").mkdir(parents=True)
    (tmp_path / "group_vars" / "all" / "rbee.yml").write_text("rbee_repo_url: https://example.org/rbee.git\n")
    inventory = Inventory(tmp_path, Paths(tmp_path.parent / "home"))

    with trial(inventory, Node("h2", host="10.0.0.2")) as copy:
        node = copy.require("h2")
        assert (node.address, node.repo_url) == ("10.0.0.2", "https://example.org/rbee.git")
        assert "ControlMaster=no" in node.variables["ansible_ssh_args"]

    assert inventory.file.read_text() == HOSTS
    assert not copy.file.exists()
