"""Write the Ansible inventory of a rig, in the shape of `inventory/example`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.rig.base import ADMIN

HOSTS = "hosts.yml"
REACH = "group_vars/all/ansible.yml"
FLEET = "group_vars/all/rbee.yml"
_HEADER = "# Made by the rig for its hosts; goes with them.\n"
_NO_BREAKS = 4096


def write_inventory(
    folder: Path,
    *,
    addresses: Mapping[str, str],
    queen: str | None,
    reach: Mapping[str, object],
    fleet: Mapping[str, object],
) -> Path:
    """Write an inventory whose hosts are all hives, and give its `hosts.yml`.

    *queen* is the host that is the control machine too, None for none; *reach* says how Ansible gets in, *fleet* holds
    rbee's own variables for all hosts.
    """
    groups: dict[str, Any] = {
        "rbee_queen": {"hosts": {queen: None} if queen else {}},
        "rbee_hives": {"hosts": {name: {"ansible_host": address} for name, address in addresses.items()}},
    }
    _write(folder / HOSTS, {"all": {"children": groups}})
    _write(folder / REACH, {"ansible_user": ADMIN, **reach})
    _write(folder / FLEET, dict(fleet))
    return folder / HOSTS


def remove_inventory(folder: Path) -> None:
    """Remove what `write_inventory` wrote; what somebody else put beside it stays."""
    for name in (HOSTS, REACH, FLEET):
        (folder / name).unlink(missing_ok=True)
    for emptied in (folder / "group_vars/all", folder / "group_vars", folder):
        with suppress(OSError):
            emptied.rmdir()


def _write(path: Path, content: dict[str, Any]) -> None:
    yaml = YAML()
    yaml.width = _NO_BREAKS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"---\n{_HEADER}")
        yaml.dump(content, file)
