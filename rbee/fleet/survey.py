"""Survey a machine before it is added to the inventory, through a temporary copy of the inventory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rbee.config.paths import Paths
from rbee.contracts.devices import Backend
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.report import HostReport

# A connection that is still open from before would say nothing about this user and this key.
_ALONE: Final = {"ansible_ssh_args": "-o StrictHostKeyChecking=yes -o ControlMaster=no -o ControlPath=none"}


@dataclass(frozen=True, slots=True)
class Unit:
    """The service of a daemon on a machine; `state` is the service manager's word, or "not installed"."""

    known: bool = False
    state: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a survey of one machine; `devices` counts them by backend, the best backend first."""

    system: str
    python: str
    sudo: str
    devices: dict[Backend, int]
    fault: str = ""
    hive: Unit = Unit()
    queen: Unit = Unit()

    @property
    def backends(self) -> list[Backend]:
        """Return the backends, the best first."""
        return list(self.devices)


@contextmanager
def trial(inventory: Inventory, node: Node) -> Iterator[Inventory]:
    """Yield a copy of *inventory* with *node* in it; that the copy can be written shows that the original can.

    Variables of groups and hosts are those of the original. Raises what `Inventory.put` raises.
    """
    with tempfile.TemporaryDirectory(prefix="rbee-trial-") as name:
        folder = Path(name)
        for kind in ("group_vars", "host_vars"):
            if (inventory.folder / kind).is_dir():
                (folder / kind).symlink_to((inventory.folder / kind).absolute())
        if inventory.file.is_file():
            shutil.copyfile(inventory.file, folder / inventory.file.name)
        copy = Inventory(folder / inventory.file.name, Paths(folder / "rbee"))
        copy.put(replace(node, variables={**node.variables, **_ALONE}), replace=True)
        yield copy


def findings(report: HostReport) -> Findings | None:
    """Parse the facts of a host from a run; return None if it set none."""
    machine = report.facts.get("rbee_machine")
    if not isinstance(machine, Mapping):
        return None
    cuda = machine.get("cuda") or {}
    devices: dict[Backend, int] = {}
    if cuda.get("devices"):
        devices[Backend.CUDA] = len(cuda["devices"])
    if machine.get("system") == "darwin" and machine.get("machine") == "arm64":
        devices[Backend.METAL] = 1
    devices[Backend.CPU] = 1
    return Findings(
        system=str(machine.get("system", "")),
        python=str((machine.get("python") or {}).get("version", "")),
        sudo=str(machine.get("sudo", "")),
        devices=devices,
        fault=str(cuda.get("fault", "")),
        hive=_unit(machine, "rbee-hive"),
        queen=_unit(machine, "queen-rbee"),
    )


def _unit(machine: Mapping[str, Any], name: str) -> Unit:
    unit: Mapping[str, Any] = (machine.get("units") or {}).get(name) or {}
    if not unit.get("known"):
        return Unit(state="not installed")
    return Unit(known=True, state=str(unit.get("active", "unknown")), release=str(unit.get("release", "")))
