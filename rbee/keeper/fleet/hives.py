"""Install, upgrade, start, stop and remove hives, each through a playbook; show their state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.fleet.inventory import Node
from rbee.fleet.report import HostReport, Verdict
from rbee.fleet.runner import RunResult
from rbee.fleet.survey import findings
from rbee.keeper.config_check import check_inventory
from rbee.keeper.devices import print_devices
from rbee.keeper.fleet.inventory import known_nodes, open_inventory, select_nodes
from rbee.keeper.fleet.registration import register, unregister
from rbee.keeper.fleet.runs import (
    confirm,
    done_nodes,
    host_data,
    playbook_run,
    print_summary,
    require_repository,
    run_or_show,
    run_playbook,
)
from rbee.keeper.queen.lifecycle import probe
from rbee.keeper.session import Session
from rbee.keeper.ui.errors import AlreadyReportedError
from rbee.keeper.ui.options import Selection


def install(
    session: Session, selection: Selection, *, check: bool, show_command: bool, keys: str | None = None
) -> None:
    """Install hives with their models, and start them; *keys* is what to do where a machine has another operator's."""
    nodes = _ready(session, selection, needs_repository=True)
    extra = {"rbee_other_keys": keys} if keys else {}
    done = run_or_show(session, "install-hives", nodes, extra, check=check, show_command=show_command)
    if done is not None:
        _summarize(session, nodes, done, check=check)
        _next(session, "rbee-keeper infer --model demo --prompt TEXT", check=check)


def upgrade(session: Session, selection: Selection, *, branch: str | None, check: bool, show_command: bool) -> None:
    """Upgrade machines to the newest commit of their branch, or of *branch*, one machine first."""
    nodes = _ready(session, selection, needs_repository=True)
    done = run_or_show(
        session, "upgrade-fleet", nodes, branch_variables(branch), check=check, show_command=show_command
    )
    if done is not None:
        _summarize(session, nodes, done, check=check)
        if not check:
            warn_of_branch(session, nodes, branch)


def branch_variables(branch: str | None) -> dict[str, str]:
    """Return the variables that install *branch*, also where the inventory pins a version, which goes before it."""
    return {"rbee_repo_branch": branch, "rbee_git_version": branch} if branch else {}


def warn_of_branch(session: Session, nodes: Sequence[Node], branch: str | None) -> None:
    """Say where the inventory names another branch than the one that was just installed."""
    others = sorted({each.repo_branch or "main" for each in nodes} - {branch})
    if branch and others:
        session.out.warn(
            f"the inventory still names {', '.join(others)}, and the next installation returns to that; "
            f"to keep {branch}, set rbee_repo_branch: {branch}"
        )


def start(session: Session, selection: Selection, *, check: bool, show_command: bool) -> None:
    """Start installed hives and wait until they serve."""
    nodes = _ready(session, selection)
    done = run_or_show(session, "start-hive", nodes, {}, check=check, show_command=show_command)
    if done is not None:
        _summarize(session, nodes, done, check=check)


def stop(session: Session, selection: Selection, *, check: bool, show_command: bool) -> None:
    """Stop hives after their running requests; their workers end with them."""
    _end(session, "stop-hive", selection, check=check, show_command=show_command)


def drain(session: Session, selection: Selection, *, check: bool, show_command: bool) -> None:
    """Take hives out of service: they accept nothing new, finish what runs, and end."""
    _end(session, "drain-hive", selection, check=check, show_command=show_command)


def _end(session: Session, playbook: str, selection: Selection, *, check: bool, show_command: bool) -> None:
    nodes = _ready(session, selection)
    done = run_or_show(session, playbook, nodes, {}, check=check, show_command=show_command)
    if done is not None:
        print_summary(session.out, done, check=check)
        _next(session, f"to start them again: rbee-keeper hive start {selection.options}", check=check)


def uninstall(
    session: Session, selection: Selection, *, keep_models: bool, yes: bool, check: bool, show_command: bool
) -> None:
    """Remove everything of rbee from machines, after a confirmation; a running queen forgets them.

    The queen of a machine that has one too is left, and that is said.
    """
    nodes = _ready(session, selection)
    extra = {"rbee_hive_remove_confirmed": True, "rbee_hive_keep_models": keep_models}
    what = f"{'rbee, but not its models,' if keep_models else 'rbee and its models'} from {_names(nodes)}"
    confirm(f"Remove {what}?", f"This removes {what}", yes=yes or check or show_command)
    result = run_or_show(session, "remove-hive", nodes, extra, check=check, show_command=show_command)
    if result is None:
        return
    done = done_nodes(result, nodes)
    if not check:
        unregister(session, [node.name for node in done])
    queens = [node.name for node in done if _has_queen(result.report.hosts[node.name])]
    for name in queens:
        session.out.warn(
            f"the queen of {name} is left, with the programs that both use; to remove it: rbee-keeper queen uninstall"
        )
    print_summary(session.out, result, check=check, queens_left=queens)
    _next(session, "to remove them from the inventory too: rbee-keeper config remove-node --node NAME", check=check)


def status(session: Session, selection: Selection) -> None:
    """Print the state of the hives on their machines, their connection to the queen, and their workers.

    The exit code is 0 if every machine was reachable.
    """
    out = session.out
    views = _queen_views(session)
    rows = []
    local = LOCALHOST_NODE in selection.nodes and all(
        node.name != LOCALHOST_NODE for node in known_nodes(session.settings)
    )
    if local:
        rows.append(_local_row(session, views))
        selection = selection._replace(nodes=tuple(name for name in selection.nodes if name != LOCALHOST_NODE))
    elif not selection.nodes and not selection.groups and views is not None and LOCALHOST_NODE in views:
        rows.append(_local_row(session, views))
    if not local or selection.nodes or selection.groups:
        nodes = select_nodes(session.settings, selection)
        out.say(f"Checking {_names(nodes)}", "🩺")
        plan = playbook_run(session.settings, "check-fleet", open_inventory(session.settings), nodes)
        result = run_playbook(session, plan, nodes, on_event=lambda _event: None)
        error = result.report.error()
        if error is not None and (result.report.run_error or not result.report.hosts):
            raise error
        rows += [_row(each, result.report.hosts[each.name], views) for each in nodes]
    _show(session, rows)
    if any(row["state"] == "unreachable" for row in rows):
        raise AlreadyReportedError


def _summarize(session: Session, nodes: Sequence[Node], result: RunResult, *, check: bool) -> None:
    """Register the hives that serve now with a running queen, then print the result."""
    registered = [] if check else _register_with_queen(session, nodes, result)
    print_summary(session.out, result, check=check, told_queen=registered)


def _ready(session: Session, selection: Selection, *, needs_repository: bool = False) -> list[Node]:
    """Return the machines, after checking the inventory. Raises ConfigError with file and line."""
    nodes = select_nodes(session.settings, selection)
    check_inventory(session.settings)
    if needs_repository:
        require_repository(session.settings, nodes)
    return nodes


def _register_with_queen(session: Session, nodes: Sequence[Node], result: RunResult) -> list[str]:
    """Register the machines that are done with a running queen, now that their hives have keys."""
    settings = session.settings
    registered: list[str] = []
    try:
        if probe(settings) is None:
            return registered
        done = done_nodes(result, nodes)
        if done:
            register(settings, session.queen(), done)
            registered = [node.name for node in done]
    except RbeeError as error:
        session.out.warn(
            f"the machines could not be registered with the queen: {error.message} Its next start registers them."
        )
    if registered:
        session.out.say(f"Registered {', '.join(registered)} with the queen at {settings.queen_url}", "👑")
    return registered


def _has_queen(host: HostReport) -> bool:
    found = findings(host)
    return found is not None and found.queen.known


def _queen_views(session: Session) -> dict[str, dict[str, Any]] | None:
    """Return what the queen knows of each hive; None where no queen runs."""
    if probe(session.settings) is None:
        return None
    return {str(hive["node"]): hive for hive in session.queen().hives()}


def _row(node: Node, host: HostReport, views: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    found = findings(host)
    return {
        "node": node.name,
        "host": node.address,
        "state": daemon_state(host, found.hive.state if found else ""),
        "release": found.hive.release if found else "",
        "error": untold_error(host),
        **_seen_by_queen((views or {}).get(node.name), running=views is not None),
    }


# The states of a systemd unit whose daemon does not serve, in the words of the table.
_UNIT_STATES = {"inactive": "stopped", "active": "not answering"}


def daemon_state(host: HostReport, unit: str) -> str:
    """Return in a word what a look at a daemon found; *unit* is the state of its unit, empty where it is not known."""
    state = {Verdict.DONE: "serves", Verdict.UNREACHABLE: "unreachable"}.get(host.verdict)
    return state or _UNIT_STATES.get(unit, unit) or host.verdict.value


def untold_error(host: HostReport) -> Any:
    """Return the error of a look at a daemon; None where the state says it all: the daemon does not answer."""
    told = host.cause is not None and host.cause.code is ErrorCode.CONNECTION_TIMEOUT
    return None if told else host_data(host)["error"]


def _local_row(session: Session, views: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    session.out.say(
        f"The queen runs the hive of {LOCALHOST_NODE} as its child; it starts and stops with the queen", "👑"
    )
    view = (views or {}).get(LOCALHOST_NODE)
    return {
        "node": LOCALHOST_NODE,
        "host": LOCALHOST_NODE,
        "state": "serves" if view is not None and view.get("connected") else "stopped",
        "release": "",
        "error": None,
        **_seen_by_queen(view, running=views is not None),
    }


def _seen_by_queen(view: dict[str, Any] | None, *, running: bool) -> dict[str, Any]:
    if view is None:
        return {
            "queen": "not registered" if running else "no queen runs",
            "version": None,
            "workers": [],
            "quarantined": [],
            "devices": [],
            "yielded": [],
        }
    lost = f"not connected: {view['last_error']}" if view.get("last_error") else "not connected"
    return {
        "queen": "connected" if view.get("connected") else lost,
        "version": view.get("version"),
        "workers": view.get("workers", []),
        "quarantined": view.get("quarantined", []),
        "devices": view.get("devices", []),
        "yielded": view.get("yielded", []),
    }


def _show(session: Session, rows: list[dict[str, Any]]) -> None:
    out = session.out
    if out.json:
        out.data({"hives": rows})
        return
    out.table(
        ["node", "host", "state", "release", "queen", "workers"],
        [
            [
                row["node"],
                row["host"],
                row["state"],
                row["release"] or row["version"] or "-",
                row["queen"],
                _worker_summary(row),
            ]
            for row in rows
        ],
        empty="",
    )
    for row in rows:
        for each in row["quarantined"]:
            what = each.get("model_ref") or f"{each.get('backend')} device {each.get('device')}"
            out.warn(f"{row['node']}: {what} is quarantined: {each.get('reason')}")
        print_devices(session, row["node"], row)
        if row["error"]:
            out.error([f"{row['node']}: {row['error']['message']}", f"  Next: {row['error']['hint']}"])


def _worker_summary(row: dict[str, Any]) -> str:
    return ", ".join(f"{worker['worker_id']} {worker['state']}" for worker in row["workers"]) or "-"


def _next(session: Session, text: str, *, check: bool) -> None:
    if not check:
        session.out.say(f"Next: {text}")


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)
