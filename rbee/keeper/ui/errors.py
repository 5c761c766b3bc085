"""Where every failure of a command ends: three lines for a person, one body for a script, an exit code.

The lines are: what happened, the figures if there are any, the next step. With `--json` the error body is printed
on stdout, as the last document there, and the lines still go to stderr.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 asked to end by SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.ui.interrupts import Interrupted
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class AlreadyReportedError(Exception):
    """A command that failed and has already said so in its own output; only the exit code is left."""

    def __init__(self, exit_code: int = FAILED) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def report(failure: BaseException, flags: Flags) -> int:
    """Tell the user about *failure* and give the exit code."""
    out = Output(flags)
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) else FAILED
    if isinstance(failure, BrokenPipeError):
        _detach_stdout()
        return FAILED
    if isinstance(failure, AlreadyReportedError):
        return failure.exit_code
    if isinstance(failure, Interrupted | KeyboardInterrupt | click.Abort):
        if not (isinstance(failure, Interrupted) and failure.reported):
            out.error(["Interrupted."])
        return failure.exit_code if isinstance(failure, Interrupted) else INTERRUPTED
    if isinstance(failure, click.UsageError):
        return _usage(failure, flags, out)
    error = _as_error(failure, flags.node)
    if flags.debug:
        import traceback

        out.error(["", *"".join(traceback.format_exception(failure)).rstrip().splitlines()])
    _print(error, flags, out)
    return FAILED


def lines(error: RbeeError) -> list[str]:
    """Write an error for a person: what happened, figures or log lines, next step."""
    text = [f"Error: {error.message}"]
    empty: tuple[object, ...] = (None, "", [], {})
    figures = {key: value for key, value in error.details.items() if value not in empty and key != "log_tail"}
    reported = {key: value for key, value in figures.items() if str(value) not in error.message}
    shown = ", ".join(f"{key} {_plain(value)}" for key, value in reported.items())
    text.append(f"  {error.code.value}{': ' + shown if shown else ''}")
    tail = error.details.get("log_tail")
    if isinstance(tail, list):
        text += [f"  | {line}" for line in tail]
    if error.hint:
        text.append(f"  Next: {error.hint}")
    return text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _print(error: RbeeError, flags: Flags, out: Output) -> None:
    if flags.json:
        out.data(error.body())
    out.error(lines(error))


def _usage(failure: click.UsageError, flags: Flags, out: Output) -> int:
    path = failure.ctx.command_path if failure.ctx is not None else "rbee-keeper"
    error = RbeeError(ErrorCode.INVALID_REQUEST, failure.format_message(), hint=f"{path} --help")
    if flags.json:
        out.data(error.body())
    out.error([f"Error: {error.message}", f"  Next: {path} --help"])
    return WRONG_USAGE


def _as_error(failure: BaseException, node: str | None) -> RbeeError:
    """Return the error to report; what is no expected failure is a bug and is reported as one."""
    if isinstance(failure, RbeeError):
        if failure.code is ErrorCode.NODE_NOT_FOUND and node is not None:
            failure.hint = f"Add it: rbee-keeper config set-ssh --node {node} --host ADDRESS --user USER"
        return failure
    if isinstance(failure, PermissionError) or (isinstance(failure, OSError) and failure.filename):
        from pathlib import Path

        from rbee.config.paths import storage_error

        path = str(failure.filename or "a file")
        code = storage_error(failure, Path(path)).code
        return RbeeError(code, f"{path} cannot be used: {failure.strerror}.", details={"path": path})
    return RbeeError(
        ErrorCode.INTERNAL,
        f"{type(failure).__name__}: {failure}",
        hint="This is a bug in rbee-keeper; run the command again with --debug and report what it prints.",
    )


def _detach_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush finds no broken pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
