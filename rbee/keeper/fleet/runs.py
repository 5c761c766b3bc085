"""Run a playbook for a command: print its progress, let Ctrl-C end it in order, print a summary of each host."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from rbee.errors import ConfigError, RbeeError
from rbee.fleet.assets import Assets
from rbee.fleet.events import Event
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.report import HostReport, RunReport, Verdict
from rbee.fleet.runner import PlaybookRun, RunResult, run
from rbee.keeper.fleet import host_keys
from rbee.keeper.fleet.inventory import open_inventory
from rbee.keeper.fleet.progress import PlaybookProgress
from rbee.keeper.ui import interrupts
from rbee.keeper.ui.errors import FAILED, AlreadyReportedError, lines
from rbee.keeper.ui.interrupts import Interrupted

if TYPE_CHECKING:
    from rbee.keeper.session import Session
    from rbee.keeper.settings import Settings
    from rbee.keeper.ui.output import Output


def remote_variables(settings: Settings) -> dict[str, str]:
    """Return the playbook variables that `[remote]` of the config sets."""
    named = {
        "rbee_binary_path": settings.remote.binary_path,
        "rbee_checkout_path": settings.remote.git_repo_dir,
    }
    return {name: value for name, value in named.items() if value}


def playbook_run(
    settings: Settings,
    playbook: str,
    inventory: Inventory,
    nodes: Sequence[Node],
    extra: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
) -> PlaybookRun:
    """Describe a run of a playbook on some machines."""
    limit = tuple(node.name for node in nodes)
    return PlaybookRun(
        playbook, inventory.path, limit, {**remote_variables(settings), **(extra or {})}, check=check, diff=check
    )


def shell_command(settings: Settings, plan: PlaybookRun) -> str:
    """Return the equivalent Ansible command, with the home in which its keys are."""
    home = f"RBEE_HOME={settings.paths.home} " if settings.environ.get("RBEE_HOME") else ""
    return home + plan.shell_command(Assets.find())


def run_playbook(
    session: Session, plan: PlaybookRun, nodes: Sequence[Node], *, on_event: Callable[[Event], None] | None = None
) -> RunResult:
    """Run a playbook to its end. *on_event* replaces the table or the lines of its progress.

    On a terminal, a person is asked about host keys that are not known, and the playbook is run once more with those
    that are accepted.
    Raises Interrupted after a signal, when the run has ended and the state of each machine has been printed.
    """
    result = _run_once(session, plan, nodes, on_event)
    unknown = [node for node in nodes if (cause := result.report.hosts[node.name].cause) and cause.asks_trust]
    if unknown and host_keys.accept(session.out, unknown):
        result = _run_once(session, plan, nodes, on_event)
    return result


def _run_once(
    session: Session, plan: PlaybookRun, nodes: Sequence[Node], on_event: Callable[[Event], None] | None
) -> RunResult:
    hosts = {node.name: node.address for node in nodes}
    with ExitStack() as stack:
        received_signal = stack.enter_context(interrupts.defer_signals())
        if on_event is None:
            on_event = stack.enter_context(PlaybookProgress(session.out, hosts)).handle
        result = run(
            plan,
            session.settings.paths,
            hosts=hosts,
            ports={node.name: node.port for node in nodes if node.port is not None},
            on_event=on_event,
            cancelled=lambda: received_signal() is not None,
        )
        signum = received_signal()
    if signum is not None:
        session.out.error(["Interrupted. State of the machines (running the same command again continues from there):"])
        session.out.error([f"  {host.host}: {_final_state(host)}" for host in result.report.hosts.values()])
        interrupted = Interrupted(signum)
        interrupted.reported = True
        raise interrupted
    return result


def run_or_show(
    session: Session,
    playbook: str,
    nodes: Sequence[Node],
    extra: Mapping[str, Any],
    *,
    check: bool,
    show_command: bool,
) -> RunResult | None:
    """Run a playbook on some machines; or, with *show_command*, print the equivalent command and return None."""
    inventory = open_inventory(session.settings)
    plan = playbook_run(session.settings, playbook, inventory, nodes, extra, check=check)
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


def require_repository(settings: Settings, nodes: Sequence[Node]) -> None:
    """Raise ConfigError where the inventory does not say from where a machine clones rbee."""
    without = [each.name for each in nodes if each.repo_url is None and "rbee_repo_url" not in each.variables]
    if without:
        inventory = open_inventory(settings)
        raise ConfigError(
            f"rbee_repo_url, the repository to clone rbee from, is not set for {', '.join(without)}; "
            f"set it for all machines in {inventory.folder / 'group_vars/all/rbee.yml'}, "
            f"or for one: rbee-keeper config set-ssh --node {without[0]} ... --git-repo URL",
            path=str(inventory.file),
        )


def confirm(question: str, what: str, *, yes: bool) -> None:
    """Ask before something is removed; without a terminal it takes --yes. *what* is the same as a sentence."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}; without a terminal it needs --yes.")
    click.confirm(question, abort=True, err=True)


def done_nodes(result: RunResult, nodes: Sequence[Node]) -> list[Node]:
    """Return the machines on which a run came to its end."""
    return [node for node in nodes if result.report.hosts[node.name].verdict is Verdict.DONE]


def print_summary(out: Output, result: RunResult, **more: Any) -> None:
    """Print the result of each machine, with the first cause of a failure; raises AlreadyToldError after one.

    *more* is added to the JSON document.
    """
    report = result.report
    error = report.error()
    if out.json:
        failed = error is not None and not report.hosts
        out.data(
            {
                "machines": [host_data(host) for host in report.hosts.values()],
                "succeeded": error is None,
                "artefacts": str(result.artefacts),
                **more,
                **(error.body() if failed and error is not None else {}),
            }
        )
    elif report.hosts:
        out.table(
            ["machine", "state", "tasks", "changed", "cause"],
            [
                [host.host, host.verdict.value, str(host.tasks), str(len(host.changed)), _cause(host)]
                for host in report.hosts.values()
            ],
            empty="",
        )
    if error is not None:
        _report_failure(out, report, error, result)
        raise AlreadyReportedError(FAILED)


def host_data(host: HostReport) -> dict[str, Any]:
    """Return the result of one machine for --json."""
    cause = host.cause
    return {
        "node": host.host,
        "state": host.verdict.value,
        "tasks": host.tasks,
        "changed": host.changed,
        "error": {"code": cause.code.value, "message": cause.message, "hint": cause.hint, "task": cause.task}
        if cause
        else None,
    }


def _report_failure(out: Output, report: RunReport, error: RbeeError, result: RunResult) -> None:
    causes = [host.cause for host in report.hosts.values() if host.cause is not None]
    text = lines(error)
    if len(causes) > 1:
        # Each cause has its own next step.
        text = text[:1]
        for cause in causes:
            text += [f"  {cause.code.value}: {cause.message}", f"    Next: {cause.hint}"]
    out.error([*text, f"  Output of Ansible: {result.artefacts}"])


def _cause(host: HostReport) -> str:
    return f"{host.cause.code.value} at '{host.cause.task}'" if host.cause else "-"


def _final_state(host: HostReport) -> str:
    if host.verdict is Verdict.DONE:
        return "done"
    if not host.tasks:
        return "not started"
    after = f"stopped after {host.tasks} tasks, the last was '{host.last_task}'"
    return f"{after}; {len(host.changed)} of them made changes" if host.changed else f"{after}; nothing was changed"
