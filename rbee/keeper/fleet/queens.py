"""Install, upgrade, start, stop and remove the queen of the inventory, each through a playbook; show its state.

This is the queen that runs as a service on the machine of the group `rbee_queen`; that of `daemon start` is another.
"""

from __future__ import annotations

from typing import Any, Final

from rbee.client.queen import QueenClient
from rbee.client.retry import Retries
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.inventory import Node
from rbee.fleet.layout import QUEEN
from rbee.fleet.report import HostReport, Verdict
from rbee.fleet.survey import findings
from rbee.keeper.config_check import check_inventory
from rbee.keeper.fleet.hives import branch_variables, daemon_state, untold_error, warn_of_branch
from rbee.keeper.fleet.inventory import known_nodes, open_inventory
from rbee.keeper.fleet.registration import register
from rbee.keeper.fleet.runs import (
    confirm,
    done_nodes,
    playbook_run,
    print_summary,
    require_repository,
    run_or_show,
    run_playbook,
)
from rbee.keeper.queen.lifecycle import serves
from rbee.keeper.queen.receipt import count
from rbee.keeper.session import Session
from rbee.keeper.ui.errors import AlreadyReportedError
from rbee.net import host_port

DEFAULT_PORT: Final = 8080
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def queen_url(node: Node) -> str:
    """Return where the queen of a machine is to be reached, as the roles derive it too."""
    host, port = str(node.variables.get("rbee_queen_host") or ""), str(node.variables.get("rbee_queen_port"))
    number = int(port) if port.isdigit() else DEFAULT_PORT
    return f"http://{host_port(node.address if host in _ANY_ADDRESS else host, number)}"


def install(session: Session, name: str | None, *, check: bool, show_command: bool, keys: str | None = None) -> None:
    """Install the queen and start it; a machine that is named and not in its group yet is put there.

    *keys* is what to do where the machine has the key of another operator.
    """
    settings, out = session.settings, session.out
    check_inventory(settings)
    inventory = open_inventory(settings)
    there = [node.name for node in inventory.nodes(QUEEN)]
    if name is not None and name not in there:
        require_repository(settings, [inventory.require(name)])
        if there:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The queen of this inventory belongs on {', '.join(there)}, and a fleet has one queen.",
                hint="To move it: rbee-keeper queen uninstall, then install it on the other machine.",
                param="node",
            )
        if check or show_command:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"{name} is not in the group {QUEEN} yet; the installation itself puts it there.",
                hint=f"rbee-keeper queen install --node {name}",
                param="node",
            )
        inventory.join(name, QUEEN)
        out.say(f"Wrote {name} into the group {QUEEN} of {inventory.file}", "📒")
    node = _machine(session, name)
    require_repository(settings, [node])
    extra = {"rbee_other_keys": keys} if keys else {}
    result = run_or_show(session, "deploy-queen", [node], extra, check=check, show_command=show_command)
    if result is None:
        return
    registered = [] if check or not done_nodes(result, [node]) else _register_hives(session, node)
    print_summary(out, result, check=check, url=queen_url(node), told_queen=registered)
    if not check:
        _tell_how_to_use(session, node)


def upgrade(session: Session, name: str | None, *, branch: str | None, check: bool, show_command: bool) -> None:
    """Upgrade the queen to the newest commit of its branch, or of *branch*; one that does not serve is rolled back."""
    node = _checked_machine(session, name)
    require_repository(session.settings, [node])
    extra = branch_variables(branch)
    result = run_or_show(session, "deploy-queen", [node], extra, check=check, show_command=show_command)
    if result is not None:
        print_summary(session.out, result, check=check)
        if not check:
            warn_of_branch(session, [node], branch)


def start(session: Session, name: str | None, *, check: bool, show_command: bool) -> None:
    """Start the installed queen and wait until it serves."""
    node = _checked_machine(session, name)
    result = run_or_show(session, "start-queen", [node], {}, check=check, show_command=show_command)
    if result is not None:
        print_summary(session.out, result, check=check, url=queen_url(node))


def stop(session: Session, name: str | None, *, check: bool, show_command: bool) -> None:
    """Stop the queen after its running requests; the hives of other machines go on."""
    node = _checked_machine(session, name)
    result = run_or_show(session, "stop-queen", [node], {}, check=check, show_command=show_command)
    if result is not None:
        print_summary(session.out, result, check=check)
        if not check:
            session.out.say(
                "The hives go on; without a queen their workers end after a minute (rbee_hive_fence_after_s)"
            )
            session.out.say("Next: to start it again: rbee-keeper queen start")


def uninstall(session: Session, name: str | None, *, yes: bool, check: bool, show_command: bool) -> None:
    """Remove the queen with what it knows, after a confirmation; hives are left, also that of its machine."""
    node = _checked_machine(session, name)
    what = f"the queen of {node.name} with its registry, its keys of clients and their usage"
    confirm(f"Remove {what}?", f"This removes {what}", yes=yes or check or show_command)
    extra = {"rbee_queen_remove_confirmed": True}
    result = run_or_show(session, "remove-queen", [node], extra, check=check, show_command=show_command)
    if result is None:
        return
    done = bool(done_nodes(result, [node])) and not check
    found = findings(result.report.hosts[node.name])
    if done:
        _leave_group(session, node.name)
    print_summary(session.out, result, check=check, hive_left=bool(found and found.hive.known))
    if done and found and found.hive.known:
        session.out.say(f"The hive of {node.name} is left; to remove it: rbee-keeper hive uninstall --node {node.name}")


def status(session: Session, name: str | None) -> None:
    """Print the state of the queen on its machine, and what it says from here. Exit code 0 if it was reachable."""
    node = _machine(session, name)
    session.out.say(f"Checking {node.name}", "🩺")
    plan = playbook_run(session.settings, "check-queen", open_inventory(session.settings), [node])
    result = run_playbook(session, plan, [node], on_event=lambda _event: None)
    error = result.report.error()
    if error is not None and (result.report.run_error or not result.report.hosts):
        raise error
    row = _row(session, node, result.report.hosts[node.name])
    if session.out.json:
        session.out.data({"queen": row})
    else:
        session.out.table(
            ["node", "state", "release", "url", "from here"],
            [[row["node"], row["state"], row["release"] or "-", row["url"], row["from_here"]]],
            empty="",
        )
        if row["error"]:
            session.out.error([f"{row['node']}: {row['error']['message']}", f"  Next: {row['error']['hint']}"])
    if row["state"] == "unreachable":
        raise AlreadyReportedError


def _row(session: Session, node: Node, host: HostReport) -> dict[str, Any]:
    found = findings(host)
    return {
        "node": node.name,
        "host": node.address,
        "state": daemon_state(host, found.queen.state if found else ""),
        "release": found.queen.release if found else "",
        "url": queen_url(node),
        "from_here": _seen_from_here(session, node) if host.verdict is Verdict.DONE else "-",
        "error": untold_error(host),
    }


def _seen_from_here(session: Session, node: Node) -> str:
    try:
        now = QueenClient(queen_url(node), session.settings.api_key(), retries=Retries(())).status()
    except RbeeError as error:
        if error.code in (ErrorCode.INVALID_API_KEY, ErrorCode.MISSING_API_KEY):
            return "does not accept the key of this user"
        return "does not respond; its port may be closed"
    return f"{count(now['hives_connected'], 'hive')}, {count(now['workers'], 'worker')}"


def _machine(session: Session, name: str | None) -> Node:
    """Return the machine of the queen. Raises RbeeError where the inventory names none, or several and not one."""
    inventory = open_inventory(session.settings)
    nodes = inventory.nodes(QUEEN)
    found = [node for node in nodes if name in (None, node.name)]
    if len(found) == 1:
        return found[0]
    if name is not None:
        inventory.require(name)
    where = ", ".join(node.name for node in nodes) or "no machine"
    raise RbeeError(
        ErrorCode.INVALID_REQUEST if nodes else ErrorCode.NODE_NOT_FOUND,
        f"The group {QUEEN} of {inventory.path} has {where}" + (f", not {name}." if name and nodes else "."),
        hint=f"Name one: --node {nodes[0].name}"
        if nodes
        else "rbee-keeper queen install --node NAME puts the queen on a machine of the inventory; "
        "without --node, name one in that group. A queen on this machine: rbee-keeper daemon start",
        param="node",
    )


def _checked_machine(session: Session, name: str | None) -> Node:
    node = _machine(session, name)
    check_inventory(session.settings)
    return node


def _register_hives(session: Session, node: Node) -> list[str]:
    """Register the hives that are installed already with the new queen; return their names."""
    from rbee.fleet.credentials import hive_key

    settings, registered = session.settings, list[str]()
    try:
        queen = QueenClient(queen_url(node), settings.api_key())
        known = {str(row["node_name"]) for row in queen.nodes()}
        nodes = known_nodes(settings)
        new = [each for each in nodes if each.name not in known and hive_key(settings.paths, each.name) is not None]
        if new:
            register(settings, queen, new)
            registered = [each.name for each in new]
    except RbeeError as error:
        session.out.warn(
            f"the queen serves on {node.name}, but from here its hives could not be registered: {error.message}"
        )
    if registered:
        session.out.say(f"Registered {', '.join(registered)} with the queen at {queen_url(node)}", "👑")
    return registered


def _tell_how_to_use(session: Session, node: Node) -> None:
    settings, url = session.settings, queen_url(node)
    if settings.queen_url == url:
        session.out.say("Next: rbee-keeper infer --model demo --prompt TEXT")
        return
    if serves(settings):
        session.out.warn(
            f"another queen serves at {settings.queen_url}; two of them get in each other's way on the same hives. "
            "To end that one and start the hives again: rbee-keeper daemon stop, rbee-keeper hive start --all"
        )
    file = settings.file.path or settings.paths.home / "config.toml"
    session.out.say(
        f'Next: rbee-keeper still uses the queen at {settings.queen_url}; for this one, set queen_url = "{url}" '
        f"at the top of {file}"
    )


def _leave_group(session: Session, name: str) -> None:
    """Take a machine out of the queen's group, so that hives are no longer to be registered there."""
    inventory = open_inventory(session.settings)
    try:
        left = inventory.leave(name, QUEEN)
    except RbeeError as error:
        left = False
        session.out.warn(error.message)
    if left:
        session.out.say(f"Took {name} out of the group {QUEEN} of {inventory.file}", "📒")
    else:
        session.out.warn(
            f"{name} is still in the group {QUEEN} of the inventory, where its variables stand; "
            "take it out, or hives will be registered there"
        )
