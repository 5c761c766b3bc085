"""`worker start`, `stop`, `list` and `health`; `workers list`, `health` and `shutdown` are the same commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import backend_option, device_option, each_node

if TYPE_CHECKING:
    from rbee.keeper.session import Session


@click.group(cls=KeeperGroup)
def worker() -> None:
    """Start, stop, list and check workers through the queen."""


@click.group(cls=KeeperGroup)
def workers() -> None:
    """List, check and shut down workers (an alias of worker)."""


def _whole_path(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else str(Path(value).expanduser().absolute())


def _keep(_ctx: click.Context, _param: click.Parameter, value: str | None) -> object:
    if value is None or value.isdecimal():
        return value and float(value)
    from rbee.contracts.served import seconds

    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(cls=KeeperGroup.command_class)
@each_node(required=True, text="The node, such as localhost, or several: h1,h2.")
@click.option("--model", required=True, metavar="REF", help="A model reference, or an alias such as demo.")
@backend_option
@device_option
@click.option("--slots", type=click.IntRange(1, 64), metavar="N", help="Serve up to N requests at once.")
@click.option(
    "--context-length", type=click.IntRange(min=64), metavar="TOKENS", help="Context length of each slot, in tokens."
)
@click.option(
    "--cache-type",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    help="Number format of the KV cache; q8_0 halves it.",
)
@click.option(
    "--flash-attention/--no-flash-attention",
    default=None,
    help="Flash attention; without either, wherever device and model support it.",
)
@click.option(
    "--prompt-batch",
    type=click.IntRange(4, 8192),
    metavar="TOKENS",
    help="Evaluate so many tokens of a prompt in one batch, for which running streams wait.",
)
@click.option(
    "--speculate",
    type=click.IntRange(0, 62),
    metavar="TOKENS",
    help="Draft so many tokens in one step; 0 turns it off.",
)
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Compute with N threads.")
@click.option(
    "--keep",
    callback=_keep,
    metavar="TIME",
    help="Keep the worker so long while nobody uses it: 90s, 10m, 2h, 1d or always.",
)
@click.option(
    "--chat-template",
    "chat_template_file",
    callback=_whole_path,
    metavar="FILE",
    help="A file on the node with a chat template (Jinja) to use instead of the model's own.",
)
@click.pass_obj
def start(flags: Flags, /, node: str, model: str, **options: Any) -> None:
    """Start a worker on a node and wait until it is ready.

    The model is downloaded to the node if it is not there yet. What is not given is as the hive of the node has it.
    """
    from rbee.contracts.errors import ErrorCode
    from rbee.errors import RbeeError
    from rbee.keeper.model_names import resolve_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.progress import ProgressPrinter

    session = Session(flags, node=node)
    request = {key: value for key, value in options.items() if value is not None}
    request |= {"node": node, "model": resolve_for(session, model)}
    spawned: dict[str, Any] | None = None
    with session.queen().spawn(request) as events, ProgressPrinter(session.out) as progress:
        for event in events:
            if not progress.handle(event) and isinstance(event.data.get("worker"), dict):
                spawned = event.data["worker"]
    if spawned is None:
        raise RbeeError(ErrorCode.INVALID_RESPONSE, "The queen ended the stream before it had named the worker.")
    if flags.json:
        session.out.data(spawned)
        return
    session.out.text(str(spawned["worker_id"]))
    session.out.say(f"To stop it: rbee-keeper worker stop --id {spawned['worker_id']}")


@click.command(cls=KeeperGroup.command_class)
@click.option("--id", "worker_id", required=True, metavar="ID", help="The id of the worker (see worker list).")
@click.pass_obj
def stop(flags: Flags, /, worker_id: str) -> None:
    """Stop a worker after its running requests.

    The exit code is 1 if it still runs afterwards.
    """
    from rbee.keeper.session import Session
    from rbee.keeper.ui.errors import AlreadyReportedError
    from rbee.keeper.ui.output import size_text

    session = Session(flags)
    session.out.say(f"Stopping {worker_id}", "🧹")
    receipt = session.queen().stop_worker(worker_id)
    if flags.json:
        session.out.data(receipt)
    else:
        memory = receipt.get("memory_returned_bytes")
        how = "killed" if receipt.get("killed") else "stopped"
        end = f"{how} after {receipt.get('seconds', 0):.1f} s" if receipt.get("gone") else "still runs"
        kept = receipt.get("memory_returned") is False
        verb = "were in use, not all of it was freed" if kept else "of memory freed"
        session.out.text(f"{worker_id} {end}" + (f", {size_text(memory)} {verb}" if memory else ""))
        for holder in receipt.get("held_by") or []:
            held = size_text(holder.get("bytes"))
            session.out.warn(f"{holder.get('name')} (process {holder.get('pid')}) still holds {held} of its memory")
        if requests := receipt.get("requests_stopped"):
            session.out.warn(f"{requests} of its requests had not ended in time and were stopped")
    if not receipt.get("gone"):
        raise AlreadyReportedError


@click.command("list", cls=KeeperGroup.command_class)
@each_node(endless="watch", text="Show only this node, or these: h1,h2.")
@click.option("--details", is_flag=True, help="Show reference, memory and options.")
@click.option("--watch", "-w", is_flag=True, help="Show it as it changes, on a terminal, until Ctrl-C.")
@click.pass_obj
def list_(flags: Flags, /, *, node: str | None, details: bool, watch: bool) -> None:
    """List the workers of all nodes, or of one node.

    A worker of a declared model is listed by the name under which that is served. With --details, memory is what a
    worker takes of what it was expected to need, and options are those that it does not have from its hive. Of a hive
    that does not answer, those are listed that it had when it last did.
    """
    from time import time

    from rbee.keeper.session import Session
    from rbee.keeper.ui.output import ago_text

    session = Session(flags, node=node)
    columns, aliases = _DETAILS if details else _COLUMNS, session.settings.aliases
    if watch:
        _watch(session, node, columns, lambda row, now: _detailed_row(row) if details else _row(row, aliases, now))
        return
    listed = session.queen().worker_list(node)
    if flags.json:
        session.out.data(listed)
        return
    rows, unreachable = listed["workers"], listed["unreachable"]
    now = time()
    session.out.table(
        columns,
        [_detailed_row(row) if details else _row(row, aliases, now) for row in _all_rows(listed)],
        empty="No hive that answers has workers."
        if unreachable
        else f"No workers run{f' on {node}' if node else ''}. To start one: rbee-keeper worker start",
    )
    for hive in unreachable:
        seen = f"; last heard of {ago_text(hive['last_seen_unix'], now)}" if hive.get("last_seen_unix") else ""
        session.out.warn(f"the hive on {hive['node']} does not answer: {hive['reason']}{seen}")
    for row in rows:
        if row.get("detail"):
            session.out.warn(f"{row['worker_id']}: {row['detail']}")
    for row in listed["quarantined"]:
        what = row.get("model_ref") or f"{row.get('backend')} device {row.get('device')}"
        until_s = max(int(float(row.get("until_unix", now)) - now), 0)
        where = f"client {row['client']}" if row.get("client") else row.get("node")
        session.out.warn(f"{where}: {what} is quarantined for another {until_s} s: {row.get('reason')}")


def _all_rows(listed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the workers, with those that hives had which do not answer now."""
    lost = [row for hive in listed["unreachable"] for row in hive["workers"]]
    return [*listed["workers"], *({**row, "state": f"unknown, was {row['state']}"} for row in lost)]


def _watch(
    session: Session, node: str | None, columns: Sequence[str], cells: Callable[[dict[str, Any], float], list[str]]
) -> None:
    """Show the workers in place, asked for once a second, without an end."""
    from time import sleep, time

    rows: list[dict[str, Any]] = []
    table = session.out.live_table(columns, lambda: [cells(row, time()) for row in rows])
    if table is None:
        raise click.UsageError("--watch needs a terminal; for a program: rbee-keeper top --json.")
    try:
        while True:
            rows[:] = _all_rows(session.queen().worker_list(node))
            sleep(_WATCH_S)
    finally:
        table.close()


_WATCH_S = 1.0
_COLUMNS = ("id", "node", "model", "on", "state", "slots free", "last used")
_DETAILS = ("id", "node", "model", "serves", "memory", "keep", "options")


def _row(row: dict[str, Any], aliases: Mapping[str, str], now: float) -> list[str]:
    from rbee.keeper.model_names import display_name
    from rbee.keeper.ui.output import ago_text

    return [
        str(row["worker_id"]),
        str(row["node"]),
        str(row.get("served") or display_name(str(row["model_ref"]), aliases)),
        f"{row['backend']}:{row['device']}",
        str(row["state"]),
        f"{row['slots_available']} of {row['slots_total']}",
        ago_text(row.get("last_active_unix"), now),
    ]


def _detailed_row(row: dict[str, Any]) -> list[str]:
    from rbee.keeper.ui.output import size_text

    keep, options = row.get("keep"), row.get("options") or {}
    return [
        str(row["worker_id"]),
        str(row["node"]),
        str(row["model_ref"]),
        str(row.get("served") or "-"),
        f"{size_text(row.get('memory_bytes'))} of {size_text(row.get('need_bytes'))}",
        f"{keep:g} s" if isinstance(keep, int | float) else str(keep or "-"),
        ", ".join(f"{name} {str(value).lower()}" for name, value in options.items()) or "-",
    ]


@click.command(cls=KeeperGroup.command_class)
@each_node(text="Show only this node, or these: h1,h2.")
@click.pass_obj
def health(flags: Flags, /, node: str | None) -> None:
    """Check whether each worker responds.

    The exit code is 1 if one does not.
    """
    from rbee.keeper.session import Session
    from rbee.keeper.ui.errors import AlreadyReportedError
    from rbee.keeper.ui.output import size_text

    session = Session(flags, node=node)
    rows = session.queen().workers_health(node)
    if flags.json:
        session.out.data({"workers": rows})
    else:
        session.out.table(
            ["id", "node", "health", "state", "slots free", "memory", "idle"],
            [_health_row(row, size_text) for row in rows],
            empty=f"No workers run{f' on {node}' if node else ''}.",
        )
    if any(not row.get("health") for row in rows):
        raise AlreadyReportedError


def _health_row(row: dict[str, Any], size_text: Any) -> list[str]:
    own = row.get("health")
    if not own:
        return [row["worker_id"], row["node"], str(row.get("error") or "does not respond"), "-", "-", "-", "-"]
    return [
        row["worker_id"],
        row["node"],
        str(own["status"]),
        str(own["state"]),
        f"{own['slots_available']} of {own['slots_total']}",
        size_text(own.get("memory_bytes")),
        f"{own.get('idle_s', 0):.0f} s",
    ]


for _command in (start, stop, list_, health):
    worker.add_command(_command)
workers.add_command(list_)
workers.add_command(health)
workers.add_command(stop, "shutdown")
