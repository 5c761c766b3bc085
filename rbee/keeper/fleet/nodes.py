"""Add, list and remove machines, for `config` and `setup`."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.keeper.fleet.cache import FleetCache
from rbee.keeper.fleet.inventory import known_nodes, open_inventory
from rbee.keeper.fleet.registration import register, registry_row
from rbee.keeper.queen.lifecycle import probe, queen_for
from rbee.keeper.session import Session

Row = dict[str, Any]


def check_key_file(text: str) -> str:
    """Return the absolute path of a private key.

    Raises RbeeError SSH_KEY_NOT_FOUND; SSH_AUTH_FAILED for one that ssh would refuse to use.
    """
    path = Path(text).expanduser().absolute()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise RbeeError(
            ErrorCode.SSH_KEY_NOT_FOUND,
            f"The key {path} cannot be read: {(error.strerror or 'unknown reason').lower()}.",
            details={"key": str(path)},
            param="key",
        ) from error
    if not path.is_file():
        raise RbeeError(ErrorCode.SSH_KEY_NOT_FOUND, f"{path} is not a file.", details={"key": str(path)}, param="key")
    if mode & 0o077:
        raise RbeeError(
            ErrorCode.SSH_AUTH_FAILED,
            f"ssh refuses the key {path}: other users can read it (mode {mode:04o}).",
            details={"key": str(path), "mode": f"{mode:04o}"},
            hint=f"chmod 600 {path}",
            param="key",
        )
    return str(path)


def put_node(session: Session, *, replace: bool, **fields: Any) -> Row:
    """Test a machine over SSH and write it to the inventory; return its row.

    *fields* are those of `fleet.inventory.Node`. Nothing is written unless every check passes.
    """
    from rbee.fleet.inventory import Node
    from rbee.fleet.survey import trial

    settings, out = session.settings, session.out
    inventory = open_inventory(settings)
    if fields.get("key_path"):
        fields["key_path"] = check_key_file(fields["key_path"])
    node = Node(**fields)
    if node.name == LOCALHOST_NODE:
        raise RbeeError(
            ErrorCode.NODE_EXISTS,
            f"{LOCALHOST_NODE} is the queen's own machine and needs no entry.",
            hint="Use it directly (rbee-keeper infer --node localhost), or choose another name.",
            param="node",
        )
    known = inventory.node(node.name)
    if known is not None and not replace:
        line = inventory.line_of(node.name)
        place = inventory.path if line is None else f"{inventory.file}:{line}"
        raise RbeeError(
            ErrorCode.NODE_EXISTS,
            f"{node.name} is in the inventory already ({place}).",
            details={"node": node.name},
        )
    with trial(inventory, node) as copy:
        found = _survey(session, copy, copy.require(node.name))
    inventory.put(node, replace=replace)
    out.say(f"Wrote {node.name} to {inventory.file}", "📒")
    FleetCache(settings.paths).update({node.name: {**found, "last_connected_unix": int(time.time())}})
    _register_with_queen(session, node.name)
    return {**registry_row(inventory.require(node.name), found), "updated": known is not None}


def _survey(session: Session, inventory: Any, node: Any) -> Row:
    """Survey the machine through Ansible; return its backends and devices. Raises RbeeError for each failure."""
    from rbee.fleet.survey import findings
    from rbee.keeper.fleet.runs import playbook_run, run_playbook

    out = session.out
    who = f"{node.user}@{node.address}" if node.user else node.address
    out.say(f"Testing the connection to {node.name} ({who})", "🔌")
    plan = playbook_run(session.settings, "survey-fleet", inventory, [node])
    result = run_playbook(session, plan, [node], on_event=lambda _event: None)
    error = result.report.error()
    if error is not None:
        error.hint = error.hint or ERRORS[error.code].hint
        raise error
    found = findings(result.report.hosts[node.name])
    if found is None:
        raise RbeeError(ErrorCode.INVALID_RESPONSE, f"The survey of {node.name} returned no facts.")
    backends = ", ".join(f"{backend.value} x{count}" for backend, count in found.devices.items())
    out.say(f"{node.name} responds: {found.system}, Python {found.python}, backends {backends}", "✅")
    if found.sudo in ("missing", "refused"):
        code = ErrorCode.SUDO_MISSING if found.sudo == "missing" else ErrorCode.SUDO_REFUSED
        out.warn(f"installing rbee on {node.name} requires root. {ERRORS[code].hint}")
    if found.fault:
        out.warn(f"the NVIDIA driver of {node.name} does not work: {found.fault}")
    return {
        "backends": [backend.value for backend in found.backends],
        "devices": {backend.value: count for backend, count in found.devices.items()},
    }


def _register_with_queen(session: Session, name: str) -> None:
    """Register the machine with a running queen; one that starts later gets it from the keeper."""
    settings, out = session.settings, session.out
    try:
        if probe(settings) is None:
            out.say("No queen runs; the machine is registered when one starts")
            return
        from rbee.fleet.credentials import ensure_hive_key

        ensure_hive_key(settings.paths, name)
        register(settings, session.queen(), [open_inventory(settings).require(name)])
    except RbeeError as error:
        out.warn(f"{name} could not be registered with the queen: {error.message} Its next start registers it.")
    else:
        out.say(f"Registered {name} with the queen at {settings.queen_url}", "👑")


def list_rows(session: Session) -> list[Row]:
    """List the machines of the inventory with the queen's state of them, or with the last known state."""
    settings = session.settings
    memory = FleetCache(settings.paths)
    running = probe(settings) is not None
    registry = {str(row["node_name"]): row for row in session.queen().nodes()} if running else {}
    memory.update(registry)
    seen = memory.read()
    rows: dict[str, Row] = {}
    for node in known_nodes(settings):
        rows[node.name] = {
            **registry_row(node, seen.get(node.name, {})),
            "status": "unknown",
            "last_error": None,
            "last_connected_unix": seen.get(node.name, {}).get("last_connected_unix"),
            "in_inventory": True,
        }
    for name, row in registry.items():
        known = {key: value for key, value in row.items() if value not in (None, [], {})}
        rows[name] = {"in_inventory": False, **row} if name not in rows else {**rows[name], **known}
    if not running:
        session.out.say("No queen runs; showing the inventory and the last known state")
    return list(rows.values())


def remove_node(session: Session, name: str) -> None:
    """Remove a machine from inventory and registry, and the key of its hive. Raises RbeeError NODE_NOT_FOUND."""
    settings, out = session.settings, session.out
    inventory = open_inventory(settings) if known_nodes(settings) else None
    listed = inventory is not None and inventory.node(name) is not None
    registered = False
    if probe(settings) is not None or (settings.paths.home / "beehives.db").exists():
        with queen_for(session) as queen:
            try:
                queen.client.remove_node(name)
                registered = True
            except RbeeError as error:
                if error.code is not ErrorCode.NODE_NOT_FOUND:
                    raise
    if not listed and not registered:
        raise RbeeError(
            ErrorCode.NODE_NOT_FOUND,
            f"Neither the inventory nor the queen knows a node named {name}.",
            details={"node": name},
            hint="To list the machines: rbee-keeper config list-nodes",
        )
    if inventory is not None and inventory.remove(name):
        out.say(f"Removed {name} from {inventory.file}", "📒")
    if registered:
        out.say(f"Removed {name} from the queen's registry", "👑")
    from rbee.fleet.credentials import delete_hive_key

    if delete_hive_key(settings.paths, name):
        out.say(f"Deleted the key of its hive; a hive that is installed on {name} is left unchanged")
    FleetCache(settings.paths).remove(name)
