"""Write the Ansible inventory of a rig, in the shape of `inventory/example`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.rig.base import ADMIN

INVENTORY_FILE = "hosts.yml"
_HEADER = "# Made by the rig for its hosts; goes with them.\n"
_NO_BREAKS = 4096


def write_inventory(
    folder: Path, *, addresses: Mapping[str, str], key: Path, known_hosts: Path, variables: Mapping[str, object]
) -> Path:
    """Write `hosts.yml` with the groups rbee_queen (the first host) and rbee_hives (all), and give its path."""
    options = {
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
    }
    first = next(iter(addresses))
    content: dict[str, Any] = {
        "all": {
            "hosts": {name: {"ansible_host": address} for name, address in addresses.items()},
            "vars": {
                "ansible_user": ADMIN,
                "ansible_ssh_private_key_file": str(key),
                "ansible_ssh_common_args": " ".join(f"-o {name}={value}" for name, value in options.items()),
                **variables,
            },
            "children": {
                "rbee_queen": {"hosts": {first: None}},
                "rbee_hives": {"hosts": dict.fromkeys(addresses)},
            },
        }
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / INVENTORY_FILE
    yaml = YAML()
    yaml.width = _NO_BREAKS
    with path.open("w", encoding="utf-8") as file:
        file.write(f"---\n{_HEADER}")
        yaml.dump(content, file)
    return path
