"""Run a playbook for a command: tell it as it happens, let Ctrl-C end it in order, sum up host by host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rbee.errors import RbeeError
from rbee.fleet.assets import Assets
from rbee.fleet.events import Event
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.report import HostReport, RunReport, Verdict
from rbee.fleet.runner import RunResult, Wish, run
from rbee.keeper import interrupts
from rbee.keeper.errors import FAILED, AlreadyToldError, lines
from rbee.keeper.fleet_story import RunStory
from rbee.keeper.interrupts import Interrupted

if TYPE_CHECKING:
    from rbee.keeper.output import Output
    from rbee.keeper.session import Session
    from rbee.keeper.settings import Settings


def remote_variables(settings: Settings) -> dict[str, str]:
    """Give the playbooks' variables for what `[remote]` of the config says, if it says anything."""
    named = {
        "rbee_binary_path": settings.remote.binary_path,
        "rbee_checkout_path": settings.remote.git_repo_dir,
    }
    return {name: value for name, value in named.items() if value}


def wish(
    settings: Settings,
    playbook: str,
    inventory: Inventory,
    nodes: Sequence[Node],
    extra: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
) -> Wish:
    """Make the wish to run a playbook on some machines."""
    limit = tuple(node.name for node in nodes)
    return Wish(
        playbook, inventory.file, limit, {**remote_variables(settings), **(extra or {})}, check=check, diff=check
    )


def shown(settings: Settings, what: Wish) -> str:
    """Give the plain Ansible line that does the same, with the home that its keys are in."""
    home = f"RBEE_HOME={settings.paths.home} " if settings.environ.get("RBEE_HOME") else ""
    return home + what.shown(Assets.find())


def perform(
    session: Session, what: Wish, nodes: Sequence[Node], *, on_event: Callable[[Event], None] | None = None
) -> RunResult:
    """Run it to its end. *on_event* tells it in other words than a table or lines.

    Raises Interrupted after a signal, when the run has ended and the state of each machine has been told.
    """
    with interrupts.noted() as asked, RunStory(session.out, [node.name for node in nodes]) as story:
        result = run(
            what,
            session.settings.paths,
            hosts={node.name: node.address for node in nodes},
            on_event=on_event or story.hear,
            cancelled=lambda: asked() is not None,
        )
        signum = asked()
    if signum is not None:
        session.out.error(["Interrupted. The machines are left as follows; running the same again goes on from there."])
        session.out.error([f"  {host.host}: {_left_as(host)}" for host in result.report.hosts.values()])
        interrupted = Interrupted(signum)
        interrupted.told = True
        raise interrupted
    return result


def sum_up(out: Output, result: RunResult, **more: Any) -> None:
    """Print how each machine came out, with the first cause of a failure; raises AlreadyToldError after one.

    *more* goes into the JSON beside the machines.
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
        _tell_failure(out, report, error, result)
        raise AlreadyToldError(FAILED)


def host_data(host: HostReport) -> dict[str, Any]:
    """Give one machine's part for scripts."""
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


def _tell_failure(out: Output, report: RunReport, error: RbeeError, result: RunResult) -> None:
    causes = [host.cause for host in report.hosts.values() if host.cause is not None]
    text = lines(error)
    if len(causes) > 1:
        # Each in its own words: what helps one machine may not help the other.
        text = text[:1]
        for cause in causes:
            text += [f"  {cause.code.value}: {cause.message}", f"    Next: {cause.hint}"]
    out.error([*text, f"  All that was said is in {result.artefacts}"])


def _cause(host: HostReport) -> str:
    return f"{host.cause.code.value} at '{host.cause.task}'" if host.cause else "-"


def _left_as(host: HostReport) -> str:
    if host.verdict is Verdict.DONE:
        return "done"
    if not host.tasks:
        return "nothing was begun"
    after = f"stopped after {host.tasks} tasks, the last was '{host.last_task}'"
    return (
        f"{after}; {len(host.changed)} of them changed something" if host.changed else f"{after}; nothing was changed"
    )
