"""Install, upgrade, start, stop and remove hives, each through a playbook; show their state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.inventory import Node
from rbee.fleet.report import HostReport, Verdict
from rbee.fleet.runner import RunResult
from rbee.fleet.survey import findings
from rbee.keeper.config_check import check_inventory
from rbee.keeper.fleet.inventory import open_inventory, select_nodes
from rbee.keeper.fleet.registration import register
from rbee.keeper.fleet.runs import host_data, playbook_run, print_summary, run_playbook, shell_command
from rbee.keeper.queen.lifecycle import probe
from rbee.keeper.session import Session
from rbee.keeper.ui.errors import AlreadyReportedError


def install(session: Session, node: str | None, *, check: bool, show_command: bool) -> None:
    """Install hives with their models, and start them."""
    nodes = _ready(session, node, needs_repository=True)
    done = _run(session, "install-hives", nodes, {}, check=check, show_command=show_command)
    if done is not None:
        _summarize(session, nodes, done, check=check)
        _next(session, "rbee-keeper infer --model demo --prompt TEXT", check=check)


def upgrade(session: Session, node: str | None, *, branch: str | None, check: bool, show_command: bool) -> None:
    """Upgrade machines to the newest commit of their branch, or of *branch*, one machine first."""
    nodes = _ready(session, node, needs_repository=True)
    # Also where the inventory pins a version, which goes before its branch.
    extra = {"rbee_repo_branch": branch, "rbee_git_version": branch} if branch else {}
    done = _run(session, "upgrade-fleet", nodes, extra, check=check, show_command=show_command)
    if done is None:
        return
    _summarize(session, nodes, done, check=check)
    others = sorted({each.repo_branch or "main" for each in nodes} - {branch})
    if branch and others and not check:
        session.out.warn(
            f"the inventory still names {', '.join(others)}, and the next installation returns to that; "
            f"to keep {branch}, set rbee_repo_branch: {branch}"
        )


def start(session: Session, node: str | None, *, check: bool, show_command: bool) -> None:
    """Start installed hives and wait until they serve."""
    nodes = _ready(session, node)
    done = _run(session, "start-hive", nodes, {}, check=check, show_command=show_command)
    if done is not None:
        _summarize(session, nodes, done, check=check)


def stop(session: Session, node: str | None, *, check: bool, show_command: bool) -> None:
    """Stop hives after their running requests; their workers end with them."""
    nodes = _ready(session, node)
    done = _run(session, "stop-hive", nodes, {}, check=check, show_command=show_command)
    if done is not None:
        print_summary(session.out, done, check=check)
        _next(session, f"to start them again: rbee-keeper hive start {_which(node)}", check=check)


def uninstall(
    session: Session, node: str | None, *, keep_models: bool, yes: bool, check: bool, show_command: bool
) -> None:
    """Remove everything of rbee from machines, after a confirmation."""
    nodes = _ready(session, node)
    extra = {"rbee_hive_remove_confirmed": True, "rbee_hive_keep_models": keep_models}
    if not (yes or check or show_command):
        _confirm(nodes, keep_models=keep_models)
    done = _run(session, "remove-hive", nodes, extra, check=check, show_command=show_command)
    if done is not None:
        print_summary(session.out, done, check=check)
        _next(session, "to remove them from the inventory too: rbee-keeper config remove-node --node NAME", check=check)


def status(session: Session, node: str | None) -> None:
    """Print the state of the hives on their machines, their connection to the queen, and their workers.

    The exit code is 0 if every machine was reachable.
    """
    out = session.out
    views = _queen_views(session)
    if node == LOCALHOST_NODE:
        _show(session, [_local_row(session, views)])
        return
    nodes = select_nodes(session.settings, node)
    out.say(f"Checking {', '.join(each.name for each in nodes)}", "🩺")
    plan = playbook_run(session.settings, "check-fleet", open_inventory(session.settings), nodes)
    result = run_playbook(session, plan, nodes, on_event=lambda _event: None)
    error = result.report.error()
    if error is not None and (result.report.run_error or not result.report.hosts):
        raise error
    rows = [_row(each, result.report.hosts[each.name], views) for each in nodes]
    if node is None and views is not None and LOCALHOST_NODE in views:
        rows.insert(0, _local_row(session, views))
    _show(session, rows)
    if any(row["state"] == "unreachable" for row in rows):
        raise AlreadyReportedError


def _summarize(session: Session, nodes: Sequence[Node], result: RunResult, *, check: bool) -> None:
    """Register the hives that serve now with a running queen, then print the result."""
    registered = [] if check else _register_with_queen(session, nodes, result)
    print_summary(session.out, result, check=check, told_queen=registered)


def _run(
    session: Session, playbook: str, nodes: Sequence[Node], extra: dict[str, Any], *, check: bool, show_command: bool
) -> RunResult | None:
    """Run a playbook; or print the equivalent command and return None."""
    plan = playbook_run(session.settings, playbook, open_inventory(session.settings), nodes, extra, check=check)
    if show_command:
        line = shell_command(session.settings, plan)
        if session.out.json:
            session.out.data({"command": line})
        else:
            session.out.text(line)
        return None
    result = run_playbook(session, plan, nodes)
    if check and not session.out.json:
        for host in result.report.hosts.values():
            for change in host.changed:
                session.out.text(f"{host.host} would change: {change}")
    return result


def _ready(session: Session, node: str | None, *, needs_repository: bool = False) -> list[Node]:
    """Return the machines, after checking the inventory. Raises ConfigError with file and line."""
    nodes = select_nodes(session.settings, node)
    check_inventory(session.settings, session.out)
    without = [each.name for each in nodes if each.repo_url is None and "rbee_repo_url" not in each.variables]
    if needs_repository and without:
        inventory = open_inventory(session.settings)
        raise ConfigError(
            f"rbee_repo_url, the repository to clone rbee from, is not set for {', '.join(without)}; "
            f"set it for all machines in {inventory.folder / 'group_vars/all/rbee.yml'}, "
            f"or for one: rbee-keeper config set-ssh --node {without[0]} ... --git-repo URL",
            path=str(inventory.file),
        )
    return nodes


def _register_with_queen(session: Session, nodes: Sequence[Node], result: RunResult) -> list[str]:
    """Register the machines that are done with a running queen, now that their hives have keys."""
    settings = session.settings
    registered: list[str] = []
    try:
        if probe(settings) is None:
            return registered
        for node in nodes:
            if result.report.hosts[node.name].verdict is Verdict.DONE:
                register(settings, session.queen(), node)
                registered.append(node.name)
    except RbeeError as error:
        session.out.warn(
            f"the machines could not be registered with the queen: {error.message} Its next start registers them."
        )
    if registered:
        session.out.say(f"Registered {', '.join(registered)} with the queen at {settings.queen_url}", "👑")
    return registered


def _confirm(nodes: Sequence[Node], *, keep_models: bool) -> None:
    names = ", ".join(node.name for node in nodes)
    what = "rbee, but not its models," if keep_models else "rbee and its models"
    if not sys.stdin.isatty():
        raise click.UsageError(f"This removes {what} from {names}; without a terminal it needs --yes.")
    click.confirm(f"Remove {what} from {names}?", abort=True, err=True)


def _queen_views(session: Session) -> dict[str, dict[str, Any]] | None:
    """Return what the queen knows of each hive; None where no queen runs."""
    if probe(session.settings) is None:
        return None
    return {str(hive["node"]): hive for hive in session.queen().hives()}


def _row(node: Node, host: HostReport, views: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    found = findings(host)
    unit = found.unit if found else ""
    state = {Verdict.DONE: "serves", Verdict.UNREACHABLE: "unreachable"}.get(host.verdict, _UNITS.get(unit, unit))
    known_cause = host.cause is not None and host.cause.code is ErrorCode.CONNECTION_TIMEOUT
    return {
        "node": node.name,
        "host": node.address,
        "state": state or host.verdict.value,
        "release": found.release if found else "",
        "error": None if known_cause else host_data(host)["error"],
        **_seen_by_queen((views or {}).get(node.name), running=views is not None),
    }


# The states of a systemd unit whose hive does not serve, in the words of the table.
_UNITS = {"inactive": "stopped", "active": "not answering"}


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
        }
    lost = f"not connected: {view['last_error']}" if view.get("last_error") else "not connected"
    return {
        "queen": "connected" if view.get("connected") else lost,
        "version": view.get("version"),
        "workers": view.get("workers", []),
        "quarantined": view.get("quarantined", []),
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
        if row["error"]:
            out.error([f"{row['node']}: {row['error']['message']}", f"  Next: {row['error']['hint']}"])


def _worker_summary(row: dict[str, Any]) -> str:
    return ", ".join(f"{worker['worker_id']} {worker['state']}" for worker in row["workers"]) or "-"


def _next(session: Session, text: str, *, check: bool) -> None:
    if not check:
        session.out.say(f"Next: {text}")


def _which(node: str | None) -> str:
    return f"--node {node}" if node else "--all"
