"""Register the machines of the inventory with a queen; the inventory decides which there are."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from rbee.errors import RbeeError
from rbee.keeper.fleet.cache import FleetCache
from rbee.keeper.fleet.inventory import inventory_path, known_nodes

if TYPE_CHECKING:
    from rbee.client.queen import QueenClient
    from rbee.fleet.inventory import Node
    from rbee.keeper.session import Session
    from rbee.keeper.settings import Settings

DEFAULT_HIVE_PORT = 9200
DEFAULT_INSTALL_PATH = "/opt/rbee"


def registry_row(node: Node, seen: dict[str, Any]) -> dict[str, Any]:
    """Build the registry's row of a node from the inventory and the last survey."""
    return {
        "node_name": node.name,
        "ssh_host": node.address,
        "ssh_port": node.port or 22,
        "ssh_user": node.user or getpass.getuser(),
        "ssh_key_path": node.key_path,
        "git_repo_url": node.repo_url,
        "git_branch": node.repo_branch or "main",
        "install_path": node.install_path or DEFAULT_INSTALL_PATH,
        "hive_port": node.hive_port or DEFAULT_HIVE_PORT,
        "backends": seen.get("backends", []),
        "devices": seen.get("devices", {}),
    }


def register(settings: Settings, queen: QueenClient, node: Node) -> dict[str, Any]:
    """Register one machine, with the key of its hive if it has one; return the registry's row."""
    from rbee.fleet.credentials import hive_key

    own = node.variables.get("rbee_hive_api_key")
    # Only Ansible can read one from a vault; the playbooks then register the hive themselves (rbee_queen_url).
    key = own if isinstance(own, str) and "{{" not in own else hive_key(settings.paths, node.name)
    seen = FleetCache(settings.paths).read().get(node.name, {})
    return queen.add_node({**registry_row(node, seen), "replace": True, **({"hive_key": key} if key else {})})


def register_all(session: Session, queen: QueenClient) -> None:
    """Register every machine that a queen that has just started does not know, or knows differently.

    An inventory that cannot be read is a warning only: what runs on this machine does not depend on it.
    """
    settings = session.settings
    if not inventory_path(settings).exists():
        return
    try:
        nodes = known_nodes(settings)
        if not nodes:
            return
        memory = FleetCache(settings.paths).read()
        known = {str(row["node_name"]): row for row in queen.nodes()}
        for node in nodes:
            if _differs(registry_row(node, memory.get(node.name, {})), known.get(node.name)):
                register(settings, queen, node)
    except RbeeError as error:
        session.out.warn(f"the machines of the inventory were not registered with the queen: {error.message}")


def _differs(wanted: dict[str, Any], known: dict[str, Any] | None) -> bool:
    # Backends and devices come from the hive itself once it has connected.
    own = ("backends", "devices")
    return known is None or any(known.get(key) != value for key, value in wanted.items() if key not in own)
