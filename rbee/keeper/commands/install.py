"""`install`: link the programs, make the folders, write a first config file."""

from __future__ import annotations

from pathlib import Path

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand


@click.command(cls=KeeperCommand)
@click.option("--system", is_flag=True, help="Install for all users: /usr/local/bin, /etc/rbee and /var/lib/rbee.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    help="With --system: install below this folder (for packagers).",
)
@click.pass_obj
def install(flags: Flags, /, *, system: bool, root: Path) -> None:
    """Link the programs into a folder on PATH, and write a first config file.

    Running it again changes nothing.
    """
    import os

    from rbee.config.paths import Paths
    from rbee.keeper.installer import PROGRAMS, system_target, user_target
    from rbee.keeper.installer import install as steps
    from rbee.keeper.ui.output import Output

    if root != Path("/") and not system:
        raise click.UsageError("--root requires --system.")
    out = Output(flags)
    environ = dict(os.environ)
    target = system_target(root.absolute()) if system else user_target(Path.home(), Paths.of(environ).home)
    changes = []
    for change in steps(target):
        out.say(change, "📦")
        changes.append(change)
    on_path = str(target.programs) in environ.get("PATH", "").split(os.pathsep)
    if flags.json:
        out.data(
            {
                "programs": {name: str(target.programs / name) for name in PROGRAMS},
                "config": str(target.config),
                "data": str(target.data),
                "changed": changes,
                "on_path": on_path,
            }
        )
        return
    out.text(f"rbee is {'installed' if changes else 'already installed'}:")
    out.text(f"  programs  {target.programs}")
    out.text(f"  settings  {target.config}")
    out.text(f"  data      {target.data}")
    out.text("Next steps:")
    if not on_path:
        out.text(f'  export PATH="{target.programs}:$PATH"        (add it to your shell\'s profile)')
    if system:
        out.text(f"  export RBEE_HOME={target.data}        (for every user who runs daemons here)")
    out.text("  rbee-keeper doctor")
    out.text('  rbee-keeper infer --model demo --prompt "Name three kinds of bees."')
