"""The entry point of `rbee-keeper`: the table of its commands, and the one place where a command ends.

Nothing of ours but `lazy` is imported here: `--help` and `--version` must cost little more than click itself.
"""

from __future__ import annotations

import io
import sys

import click

from rbee import __version__
from rbee.keeper.ui.lazy import Entry, Flags, LazyGroup, flag_options

_AT = "rbee.keeper.commands."
COMMANDS = {
    "infer": Entry(_AT + "infer:infer", "Answer one prompt; start a queen, a hive and a worker as needed."),
    "chat": Entry(_AT + "chat:chat", "Talk with a model in the terminal."),
    "daemon": Entry(_AT + "daemon:daemon", "Start, stop and show the queen of this machine."),
    "worker": Entry(_AT + "worker:worker", "Start, stop, list and check workers."),
    "workers": Entry(_AT + "worker:workers", "List, check and shut down workers (an alias of worker)."),
    "models": Entry(_AT + "models:models", "Pull, list, show and remove models on nodes; declare which are served."),
    "explain": Entry(_AT + "explain:explain", "Explain where a model runs or could run, and why not elsewhere."),
    "top": Entry(_AT + "top:top", "Show machines, models and requests as they change."),
    "console": Entry(_AT + "console:console", "Open the queen's page in a browser."),
    "keys": Entry(_AT + "keys:keys", "Manage the API keys of clients."),
    "usage": Entry(_AT + "usage:usage", "Show what clients have used, by day, client and model."),
    "hive": Entry(_AT + "hive:hive", "Install, upgrade, start, drain, stop and remove hives on machines."),
    "queen": Entry(_AT + "queen:queen", "Install, upgrade, start, stop and remove the queen on a machine."),
    "setup": Entry(_AT + "setup:setup", "Add, list, install and remove machines (an alias of config and hive)."),
    "config": Entry(_AT + "config:config", "Show and check settings; add, list and remove machines."),
    "logs": Entry(_AT + "logs:logs", "Print the logs of a node's hive and workers."),
    "install": Entry(_AT + "install:install", "Link the programs into a folder on PATH and write a first config file."),
    "doctor": Entry(_AT + "doctor:doctor", "Check what rbee needs on this machine."),
    "completion": Entry(_AT + "completion:completion", "Print a shell completion script."),
}


@click.command(
    cls=LazyGroup,
    entries=COMMANDS,
    params=flag_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    # The line with a backspace keeps click from joining the lines below it.
    help="""Run language models on your own machines.

    \b
    First steps:
      rbee-keeper install
      rbee-keeper infer --model demo --prompt "Name three kinds of bees."
    """,
    epilog="Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted.",
)
@click.version_option(__version__, prog_name="rbee-keeper", message="%(prog)s %(version)s")
def cli() -> None:
    """Run language models on your own machines."""


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command; every exception ends here and becomes an exit code."""
    flags = Flags()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not UTF-8 shows a question mark for what it lacks; the command goes on.
            stream.reconfigure(errors="replace")
    try:
        result = cli.main(argv, prog_name="rbee-keeper", standalone_mode=False, obj=flags)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as failure:  # noqa: BLE001 - the edge: nothing is above it
        from rbee.keeper.ui.errors import report

        flags.json = flags.json or "--json" in argv
        return report(failure, flags)
