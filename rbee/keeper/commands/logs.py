"""`logs`: the logs of a node's hive and workers."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand
from rbee.keeper.ui.options import each_node


@click.command(cls=KeeperCommand)
@each_node(required=True, endless="follow", text="The node, such as localhost, or several: h1,h2.")
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they come, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Print the last N lines of each log.",
)
@click.pass_obj
def logs(flags: Flags, /, node: str, *, follow: bool, lines: int) -> None:
    """Print the logs of a node's hive and workers.

    Each line begins with the name of the daemon that wrote it.
    """
    from rbee.keeper.session import Session

    session = Session(flags, node=node)
    with session.queen().logs(node, follow=follow, lines=lines) as events:
        for event in events:
            if flags.json:
                session.out.event("log", event.data)
            else:
                session.out.text(f"{event.data.get('source', '?')}  {event.data.get('line', '')}")
