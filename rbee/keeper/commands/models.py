"""`models pull`, `cancel`, `list`, `show` and `rm`: the model catalogs of nodes; the commands of served models."""

from __future__ import annotations

from typing import Any

import click

from rbee.contracts.ids import LOCALHOST_NODE
from rbee.keeper.commands.explain import explain
from rbee.keeper.commands.served import plan, serve, served, unserve
from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import each_node, several_nodes

_node = each_node(default=LOCALHOST_NODE, text="The node, or several: h1,h2; without it localhost.")
_model = click.argument("model", metavar="MODEL")


@click.group(cls=KeeperGroup)
def models() -> None:
    """Pull, list, show and remove models on nodes; declare which are served.

    A running queen is used. Where none runs, one is started for this command and stopped afterwards; what is declared
    (serve, unserve, served) needs one that runs.
    """


@models.command()
@_node
@_model
@click.pass_obj
def pull(flags: Flags, /, node: str, model: str) -> None:
    """Download MODEL to a node.

    MODEL is a reference, an alias or the name of a declared model. A model that is there already is not downloaded
    again. Ctrl-C ends the download unless somebody else waits for it; what was received is kept for a week, and the
    next pull continues there.
    """
    from rbee.keeper.model_names import resolve_for
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.progress import ProgressPrinter

    session = Session(flags, node=node)
    reference = resolve_for(session, model)
    with queen_for(session) as queen:
        with (
            queen.client.download(node, reference) as events,
            ProgressPrinter(session.out, as_events=flags.json) as progress,
        ):
            for event in events:
                progress.handle(event)
        row = queen.client.model(node, reference)
    if flags.json:
        session.out.event("complete", {"model": row})
    else:
        session.out.text(str(row.get("local_path") or reference))


@models.command()
@_node
@_model
@click.pass_obj
def cancel(flags: Flags, /, node: str, model: str) -> None:
    """Cancel the download of MODEL to a node.

    MODEL is a reference, an alias or the name of a declared model. Whoever waits for the download is told. What was
    received is kept for a week, and the next pull continues there.
    """
    from rbee.keeper.model_names import resolve_for
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session

    session = Session(flags, node=node)
    reference = resolve_for(session, model)
    with queen_for(session) as queen:
        queen.client.cancel_download(node, reference)
    if flags.json:
        session.out.data({"node": node, "canceled": reference})
    else:
        session.out.text(f"Canceled the download of {reference} to {node}")


@models.command("list")
@several_nodes(text="Show only this node, or these: h1,h2.")
@click.pass_obj
def list_(flags: Flags, /, nodes: list[str]) -> None:
    """List the models of all nodes, or of some, and the downloads that run there.

    A model that several nodes have is one row. The exit code is 1 if a node that was named does not answer.
    """
    from time import time

    from rbee.keeper.model_names import display_name
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.errors import AlreadyReportedError
    from rbee.keeper.ui.output import ago_text, size_text

    session = Session(flags, node=nodes[0] if len(nodes) == 1 else None)
    with queen_for(session) as queen:
        listed = queen.client.model_list(nodes)
    if flags.json:
        session.out.data(listed)
    else:
        now, aliases = time(), session.settings.aliases
        session.out.table(
            ["model", "size", "quantization", "context", "downloaded", "nodes"],
            [
                [
                    display_name(str(row["reference"]), aliases),
                    size_text(row["size_bytes"]),
                    str(row.get("quantization") or "-"),
                    str(row.get("context_length") or "-"),
                    ago_text(row.get("downloaded_at_unix"), now),
                    ", ".join(map(_copy, row.get("nodes") or [])),
                ]
                for row in listed["models"]
            ]
            + [
                [display_name(str(row["reference"]), aliases), *_download_cells(row), str(row["node"])]
                for row in listed["downloads"]
            ],
            empty=f"No models on {', '.join(nodes) or 'any node'}. "
            f"To download one: rbee-keeper models pull --node {nodes[0] if nodes else LOCALHOST_NODE} demo",
        )
        for hive in listed["unreachable"]:
            session.out.warn(f"the hive on {hive['node']} does not answer: {hive['reason']}")
    if nodes and listed["unreachable"]:
        raise AlreadyReportedError


@models.command()
@_node
@_model
@click.pass_obj
def show(flags: Flags, /, node: str, model: str) -> None:
    """Show the details of MODEL.

    MODEL is an id, a reference or an alias. The details come from the node's catalog and the header of the file.
    """
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session

    session = Session(flags, node=node)
    with queen_for(session) as queen:
        row = queen.client.model(node, session.settings.aliases.get(model, model))
    if flags.json:
        session.out.data(row)
        return
    details = {_label(key): _detail(key, value) for key, value in row.items() if value is not None}
    width = max(len(label) for label in details)
    for label, text in details.items():
        session.out.text(f"{label:<{width}}  {text}")


@models.command()
@_node
@_model
@click.pass_obj
def rm(flags: Flags, /, node: str, model: str) -> None:
    """Remove MODEL from a node.

    MODEL is an id, a reference or an alias. Its file is deleted only if the hive has downloaded it.
    """
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session

    session = Session(flags, node=node)
    reference = session.settings.aliases.get(model, model)
    with queen_for(session) as queen:
        queen.client.remove_model(node, reference)
    if flags.json:
        session.out.data({"node": node, "removed": reference})
    else:
        session.out.text(f"Removed {reference} from {node}")


for _command in (serve, unserve, served, plan, explain):
    models.add_command(_command)


def _download_cells(row: dict[str, Any]) -> list[str]:
    """Return size, quantization, context and time of a model that is still being downloaded."""
    from rbee.keeper.ui.output import size_text

    done, total = int(row.get("bytes_downloaded") or 0), row.get("bytes_total")
    percent = f" {100 * done // total} %" if total else ""
    source = f" from {row['source']}" if row.get("source") else ""
    return [size_text(total) if total else "-", "-", "-", f"{row['stage']}{percent}{source}"]


def _copy(row: dict[str, Any]) -> str:
    """Return the name of a node that has a model, and what is wrong with the copy there."""
    return str(row["node"]) + (f" [{row['problem']}]" if row.get("problem") else "")


def _label(key: str) -> str:
    return key.removesuffix("_bytes").removesuffix("_unix").removesuffix("_at").replace("_", " ")


def _detail(key: str, value: object) -> str:
    from time import time

    from rbee.keeper.ui.output import ago_text, size_text

    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{size_text(value)} ({value} bytes)"
    if key.endswith("_unix") and isinstance(value, int | float):
        return ago_text(value, time())
    return str(value)
