"""Register the machines of the inventory with a queen; the inventory decides which there are."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rbee.contracts.errors import ErrorCode
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


def register(settings: Settings, queen: QueenClient, nodes: Sequence[Node]) -> None:
    """Register machines, each with the key of its hive if it has one.

    What a queen does not take is left out. Raises RbeeError for it, when the others are registered.
    """
    memory = FleetCache(settings.paths).read()
    specs = [_spec(settings, node, memory.get(node.name, {})) for node in nodes]
    try:
        _add(queen, specs)
    except RbeeError as error:
        bad = {str(row["node"]) for row in error.details.get("nodes", ())}
        good = [spec for spec in specs if spec["node_name"] not in bad]
        if bad and good:
            _add(queen, good)
        raise


def _add(queen: QueenClient, specs: list[dict[str, Any]]) -> None:
    if len(specs) == 1:
        queen.add_node(specs[0])
    else:
        queen.add_nodes(specs)


def _spec(settings: Settings, node: Node, seen: dict[str, Any]) -> dict[str, Any]:
    key = _key_of(settings, node)
    return {**registry_row(node, seen), "replace": True, **({"hive_key": key} if key else {})}


def _key_of(settings: Settings, node: Node) -> str | None:
    from rbee.fleet.credentials import hive_key

    own = node.variables.get("rbee_hive_api_key")
    # Only Ansible can read one from a vault; the playbooks then register the hive themselves (rbee_queen_url).
    return own if isinstance(own, str) and "{{" not in own else hive_key(settings.paths, node.name)


def register_missing(session: Session, queen: QueenClient) -> None:
    """Register the installed machines of the inventory that a running queen does not know, before it places a request.

    One without a key has no hive yet, or none any more. The key of a client, which may register nothing, is no fault.
    """
    settings = session.settings
    if not inventory_path(settings).exists():
        return
    try:
        known = {str(row["node_name"]) for row in queen.nodes()}
        new = [node for node in known_nodes(settings) if node.name not in known and _key_of(settings, node) is not None]
        if new:
            register(settings, queen, new)
            names = ", ".join(node.name for node in new)
            session.out.say(f"Registered {names} from the inventory with the queen", "📒")
    except RbeeError as error:
        if error.code is not ErrorCode.FORBIDDEN:
            session.out.warn(f"the machines of the inventory were not registered with the queen: {error.message}")


def unregister(session: Session, names: list[str]) -> None:
    """Remove machines whose hives are gone from a running queen, and delete the keys of these hives."""
    from rbee.fleet.credentials import delete_hive_key
    from rbee.keeper.queen.lifecycle import probe

    settings, out = session.settings, session.out
    for name in names:
        delete_hive_key(settings.paths, name)
    try:
        if names and probe(settings) is not None:
            queen = session.queen()
            known = {str(row["node_name"]) for row in queen.nodes()}
            told = [name for name in names if name in known]
            for name in told:
                queen.remove_node(name)
            if told:
                out.say(f"Removed {', '.join(told)} from the registry of the queen at {settings.queen_url}", "👑")
    except RbeeError as error:
        out.warn(
            f"the queen at {settings.queen_url} was not told that they are gone: {error.message} "
            "To tell it: rbee-keeper config remove-node"
        )


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
        changed = [
            node for node in nodes if _differs(registry_row(node, memory.get(node.name, {})), known.get(node.name))
        ]
        if changed:
            register(settings, queen, changed)
    except RbeeError as error:
        session.out.warn(f"the machines of the inventory were not registered with the queen: {error.message}")


def _differs(wanted: dict[str, Any], known: dict[str, Any] | None) -> bool:
    # Backends and devices come from the hive itself once it has connected.
    own = ("backends", "devices")
    return known is None or any(known.get(key) != value for key, value in wanted.items() if key not in own)
