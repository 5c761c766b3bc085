"""`completion`: the completion script of a shell."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import KeeperCommand

_VARIABLE = "_RBEE_KEEPER_COMPLETE"  # click reads this variable, whichever of its names the program is called by


@click.command(
    cls=KeeperCommand,
    # The line with a backspace keeps click from joining the lines below it.
    help="""Print the completion script of SHELL.

    \b
    For bash:
      rbee-keeper completion bash > ~/.local/share/bash-completion/completions/rbee-keeper
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL."""
    from click.shell_completion import get_completion_class

    from rbee.keeper.cli import cli

    script = get_completion_class(shell)
    assert script is not None
    for name in ("rbee-keeper", "rbee"):
        click.echo(script(cli, {}, name, _VARIABLE).source())
