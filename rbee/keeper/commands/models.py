"""`models pull`, `list`, `show` and `rm`: the catalogue of a node."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup

_node = click.option("--node", default="localhost", show_default=True, metavar="NAME", help="The node.")
_model = click.argument("model", metavar="MODEL")


@click.group(cls=KeeperGroup)
def models() -> None:
    """Pull, list, show and remove models on a node.

    A queen that runs is used; if none does, one is started for the command and ended after it.
    """


@models.command()
@_node
@_model
@click.pass_obj
def pull(flags: Flags, /, node: str, model: str) -> None:
    """Fetch MODEL (a reference or an alias) to a node; what is there already is not fetched again."""
    from rbee.keeper.model_names import resolve
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.progress import ProgressPrinter

    session = Session(flags, node=node)
    reference = resolve(model, session.settings.aliases)
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


@models.command("list")
@_node
@click.pass_obj
def list_(flags: Flags, /, node: str) -> None:
    """List the models of a node."""
    from time import time

    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.output import ago_text, size_text

    session = Session(flags, node=node)
    with queen_for(session) as queen:
        rows = queen.client.models(node)
    if flags.json:
        session.out.data({"models": rows})
        return
    now = time()
    session.out.table(
        ["id", "reference", "size", "quantisation", "context", "fetched"],
        [
            [
                str(row["id"]),
                str(row["reference"]) + (f" [{row['problem']}]" if row.get("problem") else ""),
                size_text(row["size_bytes"]),
                str(row.get("quantization") or "-"),
                str(row.get("context_length") or "-"),
                ago_text(row.get("downloaded_at_unix"), now),
            ]
            for row in rows
        ],
        empty=f"No models on {node}. Next: rbee-keeper models pull --node {node} demo",
    )


@models.command()
@_node
@_model
@click.pass_obj
def show(flags: Flags, /, node: str, model: str) -> None:
    """Show what the catalogue and the file's header say of MODEL: an id, a reference or an alias."""
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui.output import size_text

    session = Session(flags, node=node)
    with queen_for(session) as queen:
        row = queen.client.model(node, session.settings.aliases.get(model, model))
    if flags.json:
        session.out.data(row)
        return
    shown = {**row, "size_bytes": f"{size_text(row.get('size_bytes'))} ({row.get('size_bytes')} bytes)"}
    width = max(len(key) for key in shown)
    for key, value in shown.items():
        if value is not None:
            session.out.text(f"{key.replace('_', ' '):<{width}}  {value}")


@models.command()
@_node
@_model
@click.pass_obj
def rm(flags: Flags, /, node: str, model: str) -> None:
    """Remove MODEL (an id, a reference or an alias) from a node: its entry, and the file if the hive fetched it."""
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
