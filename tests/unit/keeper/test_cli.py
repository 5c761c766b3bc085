"""The command line itself: what it costs to start, and that every command can be loaded."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from rbee.contracts.workers import WorkerOptions
from rbee.keeper.cli import COMMANDS, cli, run
from rbee.keeper.commands.worker import start
from tests.support.keeper import rbee

HEAVY = "rich pydantic httpx yaml ruamel ansible_runner starlette psutil structlog filelock"


def _all_commands() -> list[list[str]]:
    paths: list[list[str]] = [[]]
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        paths.append([name])
        if isinstance(command, click.Group):
            paths += [[name, below] for below in command.list_commands(context)]
    return paths


def _loaded_after(args: list[str]) -> set[str]:
    """Run a command in a fresh interpreter and give those of the heavy modules that it loaded."""
    script = (
        "import sys\nfrom rbee.keeper.cli import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', *sorted(set({HEAVY!r}.split()) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("args", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(args: list[str]) -> None:
    """`--help` and `--version` cost little more than click."""
    assert _loaded_after(args) == set()


def test_a_list_in_a_pipe_loads_pydantic_for_its_settings_and_nothing_else() -> None:
    """`worker list` reads its settings with pydantic and asks the queen without any other heavy library."""
    assert _loaded_after(["worker", "list"]) == {"pydantic"}


@pytest.mark.parametrize("path", _all_commands(), ids=" ".join)
def test_every_command_explains_itself(path: list[str]) -> None:
    """Lazy loading hides no broken import: every command prints its help."""
    ran = rbee(*path, "--help")

    assert ran.code == 0, ran.stderr
    assert ran.stdout.startswith("Usage: rbee-keeper")
    assert not path or "--json" in ran.stdout or "Commands:" in ran.stdout


def test_the_table_of_commands_tells_the_truth() -> None:
    """Each entry of the table names a command, and has a line of help."""
    context = click.Context(cli)
    for name, entry in COMMANDS.items():
        assert cli.get_command(context, name) is not None
        assert entry.help.endswith(".")


def test_flags_may_stand_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`rbee --json config show` is `rbee config show --json`."""
    assert run(["--json", "config", "show"]) == 0
    before = capsys.readouterr().out
    assert run(["config", "show", "--json"]) == 0
    assert capsys.readouterr().out == before
    assert before.startswith("{")


@pytest.mark.parametrize("args", [["wrker"], ["worker", "lst"]])
def test_a_mistyped_command_is_corrected(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command ends with code 2 and names the one that may be meant."""
    assert run(args) == 2
    assert "Did you mean" in capsys.readouterr().err


def test_wrong_usage_with_json_is_a_body(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json even wrong usage gives an error body on stdout."""
    assert run(["infer", "--json"]) == 2
    assert '"INVALID_REQUEST"' in capsys.readouterr().out


def test_worker_start_has_an_option_for_each_of_a_worker_with_the_same_bounds() -> None:
    """What a worker can be started with is all on the command line, and what it cannot is refused there."""
    known = {option.name: option.type for option in start.params}
    for name, field in WorkerOptions.model_json_schema()["properties"].items():
        (schema,) = (kind for kind in field["anyOf"] if kind["type"] != "null")
        match known[name]:
            case click.IntRange(min=least, max=most):
                assert (least, most) == (schema["minimum"], schema.get("maximum")), name
            case click.Choice(choices=choices):
                assert list(choices) == schema["enum"], name
            case kind:
                assert (kind.name, schema["type"]) in (("boolean", "boolean"), ("text", "string")), name
    assert "keep" in known
