"""`completion`: the script that lets a shell complete our commands."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import KeeperCommand

_VARIABLE = "_RBEE_KEEPER_COMPLETE"  # click asks under this name, whatever the program is called by


@click.command(cls=KeeperCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: rbee-keeper completion bash > ~/.local/share/bash-completion/completions/rbee-keeper
    """
    from click.shell_completion import get_completion_class

    from rbee.keeper.cli import cli

    script = get_completion_class(shell)
    assert script is not None
    for name in ("rbee-keeper", "rbee"):
        click.echo(script(cli, {}, name, _VARIABLE).source())
