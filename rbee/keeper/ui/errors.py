"""Report the failure of a command: lines for a person, a body for a script, an exit code.

The lines are: what happened, the code with its details, the next step. With `--json` the error body is printed on
stdout, as the last document there, and the lines still go to stderr.
Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted, 143 terminated by SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError, name_node
from rbee.keeper.ui.interrupts import Interrupted
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
_HIDDEN_LOG_KEYS = ("daemon", "logger", "trace_id", "request_id")


class AlreadyReportedError(Exception):
    """A command that failed and has printed that already; only the exit code is left."""

    def __init__(self, exit_code: int = FAILED) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def report(failure: BaseException, flags: Flags) -> int:
    """Print *failure* and return the exit code."""
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
    if name_node(error.hint, "") != error.hint:
        error.hint = _with_node(error.hint, str(error.details.get("node") or flags.node or "") or _only_node())
    if flags.debug:
        import traceback

        out.error(["", *"".join(traceback.format_exception(failure)).rstrip().splitlines()])
    _print(error, flags, out)
    return FAILED


def lines(error: RbeeError) -> list[str]:
    """Format an error for a person: what happened, details or log lines, next step."""
    also = error.details.get("also")  # of a daemon's error too
    text = [f"Error: {message}" for message in (error.message, *(each["message"] for each in also or ()))]
    empty: tuple[object, ...] = (None, "", [], {})
    details = {
        key: value for key, value in error.details.items() if value not in empty and key not in ("log_tail", "also")
    }
    unsaid = {key: value for key, value in details.items() if str(value) not in error.message}
    shown = ", ".join(f"{key} {_plain(value)}" for key, value in unsaid.items())
    text.append(f"  {error.code.value}{': ' + shown if shown else ''}")
    tail = error.details.get("log_tail")
    if isinstance(tail, list):
        text += [f"  | {readable_log_line(str(line))}" for line in tail]
    if error.hint:
        text.append(f"  Next: {error.hint}")
    return text


def _with_node(hint: str, node: str | None) -> str:
    if node is not None:
        return name_node(hint, node)
    return name_node(hint, "NAME") + " (to list the machines: rbee-keeper config list-nodes)"


def _only_node() -> str | None:
    """Return the machine that is meant where no other is known: without an inventory there is only this one."""
    from rbee.contracts.ids import LOCALHOST_NODE
    from rbee.keeper.fleet.inventory import inventory_path
    from rbee.keeper.settings import load

    try:
        return None if inventory_path(load(os.environ)).exists() else LOCALHOST_NODE
    except RbeeError:
        return None


def readable_log_line(line: str) -> str:
    """Shorten a JSON log line of a daemon to time, level, message and details; return other lines as they are."""
    try:
        record = json.loads(line)
        time, level, message = record.pop("time"), record.pop("level"), record.pop("message")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    details = "".join(f" {key}={_plain(value)}" for key, value in record.items() if key not in _HIDDEN_LOG_KEYS)
    return f"{str(time)[11:19]} {level} {message}{details}"


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
    """Return the error to report; an exception that is not expected is reported as a bug."""
    if isinstance(failure, RbeeError):
        missing = failure.details.get("node") or node
        if failure.code is ErrorCode.NODE_NOT_FOUND and missing:
            failure.hint = f"To add it: rbee-keeper config set-ssh --node {missing} --host ADDRESS --user USER"
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
        hint="This is a bug in rbee-keeper. Run the command again with --debug and report the output.",
    )


def _detach_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's last flush does not fail on the broken pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
