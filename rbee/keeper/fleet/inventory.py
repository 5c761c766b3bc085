"""Open the inventory that the settings name, and select its nodes for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.keeper.settings import Settings
from rbee.keeper.ui.options import Selection

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


def select_nodes(settings: Settings, selection: Selection) -> list[Node]:
    """Return the machines of a selection in the inventory's order.

    Raises RbeeError: NODE_NOT_FOUND for a node or a whole inventory that has none, INVALID_REQUEST for a group.
    """
    inventory = open_inventory(settings)
    from rbee.fleet.layout import HIVES

    nodes = inventory.nodes(None)
    hives = [node for node in nodes if HIVES in node.groups]
    if not selection.nodes and not selection.groups:
        if not hives:
            raise RbeeError(
                ErrorCode.NODE_NOT_FOUND,
                f"The inventory {inventory.path} has no machines.",
                hint="To add one: rbee-keeper config set-ssh --node NAME --host ADDRESS --user USER",
            )
        return hives
    names = {node.name for node in nodes}
    for name in selection.nodes:
        if name == LOCALHOST_NODE and name not in names:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"{LOCALHOST_NODE} has no hive to manage: the queen runs the hive of its own machine as its child.",
                hint="rbee-keeper daemon start starts both, rbee-keeper daemon stop stops both.",
                param="node",
            )
        if name not in names:
            inventory.require(name)
    chosen = set(selection.nodes)
    for group in selection.groups:
        in_group = [node.name for node in hives if group in node.groups]
        if not in_group:
            raise _no_hive_in(group, nodes, inventory)
        chosen.update(in_group)
    return [node for node in nodes if node.name in chosen]


def _no_hive_in(group: str, nodes: list[Node], inventory: Inventory) -> RbeeError:
    known = sorted({name for node in nodes for name in node.groups})
    if group in known:
        message = f"The group {group!r} of {inventory.path} has no hive: none of its machines is in rbee_hives."
    else:
        message = f"The inventory {inventory.path} has no group {group!r}; it has: {', '.join(known) or 'none'}."
    return RbeeError(
        ErrorCode.INVALID_REQUEST, message, hint="To list the machines: rbee-keeper config list-nodes", param="group"
    )
