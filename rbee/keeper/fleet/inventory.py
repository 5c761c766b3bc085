"""Open the inventory that the settings name, and select its nodes for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.keeper.settings import Settings

if TYPE_CHECKING:
    from rbee.fleet.inventory import Inventory, Node


def inventory_path(settings: Settings) -> Path:
    """Return the path of the inventory, which need not exist."""
    named = settings.keeper.inventory
    return Path(named) if named else settings.paths.home / "inventory"


def open_inventory(settings: Settings) -> Inventory:
    """Open the inventory. Raises RbeeError where the packages that read it are not installed."""
    try:
        from rbee.fleet.inventory import Inventory
    except ImportError as error:
        raise RbeeError(
            ErrorCode.CONFIG_INVALID,
            "The packages that manage other machines are not installed here.",
            hint="pip install 'rbee[fleet]'",
        ) from error
    return Inventory(inventory_path(settings), settings.paths)


def known_nodes(settings: Settings) -> list[Node]:
    """List the hives of the inventory; without one, nothing is imported."""
    return open_inventory(settings).nodes() if inventory_path(settings).exists() else []


def select_nodes(settings: Settings, node: str | None) -> list[Node]:
    """Return the node of that name, or without a name all hives of the inventory. Raises RbeeError NODE_NOT_FOUND."""
    inventory = open_inventory(settings)
    nodes = inventory.nodes()
    if node is None:
        if not nodes:
            raise RbeeError(
                ErrorCode.NODE_NOT_FOUND,
                f"The inventory {inventory.path} has no machines.",
                hint="To add one: rbee-keeper config set-ssh --node NAME --host ADDRESS --user USER",
            )
        return nodes
    if node == LOCALHOST_NODE and inventory.node(node) is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{LOCALHOST_NODE} has no hive to manage: the queen runs the hive of its own machine as its child.",
            hint="rbee-keeper daemon start starts both, rbee-keeper daemon stop stops both.",
            param="node",
        )
    found = [each for each in nodes if each.name == node]
    return found or [inventory.require(node)]
