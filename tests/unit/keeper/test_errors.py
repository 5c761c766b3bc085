"""How failures are told, and which exit code they have."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import click
import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.keeper.ui.errors import AlreadyReportedError, report
from rbee.keeper.ui.interrupts import Interrupted
from rbee.keeper.ui.lazy import Flags


def flags(*names: str) -> Flags:
    made = Flags()
    for name in names:
        setattr(made, name, True)
    return made


def test_an_error_is_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened, the figures, the next step."""
    error = RbeeError(
        ErrorCode.RAM_EXHAUSTED, "Too little memory.", details={"required_mb": 6000, "available_mb": 4000}
    )

    assert report(error, flags()) == 1

    assert capsys.readouterr().err.splitlines() == [
        "Error: Too little memory.",
        "  RAM_EXHAUSTED: required_mb 6000, available_mb 4000",
        "  Next: Use a smaller quantisation or context, or stop a worker: rbee-keeper worker list",
    ]


def test_everything_wrong_with_a_config_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors that were found together are printed in the order of their lines, the code and the next step once."""
    wrong = ConfigError.of([ConfigError(f"no {line}", path="c.toml", line=line) for line in (7, 2)])

    report(wrong, flags())

    assert capsys.readouterr().err.splitlines()[:3] == [
        *("Error: c.toml:2: no 2", "Error: c.toml:7: no 7", "  CONFIG_INVALID")
    ]


@pytest.mark.parametrize(
    ("details", "of_command", "inventory", "name"),
    [
        ({"node": "h1"}, "h2", True, "h1"),
        ({}, "h2", True, "h2"),
        ({}, None, False, "localhost"),
        ({}, None, True, "NAME"),
    ],
)
def test_a_hint_names_the_machine(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    details: dict[str, str],
    of_command: str | None,
    name: str,
    *,
    inventory: bool,
) -> None:
    """The next step can be typed as it is: with the machine of the error, of the command, or the only one there is."""
    if inventory:
        (tmp_path / "rbee-home" / "inventory").mkdir(parents=True)
    made = flags()
    made.node = of_command

    report(RbeeError(ErrorCode.DISK_FULL, "Full.", details=dict(details)), made)

    told = capsys.readouterr().err.splitlines()[-1]
    assert f"rbee-keeper models rm --node {name} MODEL" in told
    assert ("config list-nodes" in told) == (name == "NAME")


def test_the_end_of_a_log_is_shown_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Log lines in the details are printed as lines."""
    report(RbeeError(ErrorCode.WORKER_START_FAILED, "It died.", details={"log_tail": ["one", "two"]}), flags())

    assert "  | one\n  | two\n" in capsys.readouterr().err


def test_a_json_log_line_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line of a daemon's log is shown as time, level, message and details."""
    line = '{"time": "2026-01-02T03:04:05.678Z", "level": "info", "daemon": "w", "message": "serving", "port": 8001}'
    report(RbeeError(ErrorCode.WORKER_START_FAILED, "It died.", details={"log_tail": [line]}), flags())

    assert "  | 03:04:05 info serving port=8001" in capsys.readouterr().err.splitlines()


def test_json_gives_the_body_on_stdout_and_the_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads the body, a person still reads the lines."""
    report(RbeeError(ErrorCode.QUEUE_FULL, "Full."), flags("json"))

    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["code"] == "QUEUE_FULL"
    assert printed.err.startswith("Error: Full.")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (RbeeError(ErrorCode.INTERNAL, "x"), 1),
        (AlreadyReportedError(), 1),
        (click.UsageError("x"), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (Interrupted(2), 130),
        (Interrupted(15), 143),
        (ValueError("x"), 1),
        (SystemExit(5), 5),
    ],
)
def test_exit_codes(failure: BaseException, code: int) -> None:
    """0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 ended by SIGTERM."""
    assert report(failure, flags()) == code


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EACCES, "PERMISSION_DENIED"), (errno.ENOSPC, "DISK_FULL"), (errno.EROFS, "PERMISSION_DENIED")],
)
def test_the_file_systems_refusal_is_no_bug(number: int, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused write names the path and has a code of its own."""
    report(OSError(number, "refused", "/some/file"), flags("json"))

    body = json.loads(capsys.readouterr().out)["error"]
    assert body["code"] == code
    assert "/some/file" in body["message"]


def test_a_bug_is_called_one_and_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected exception is INTERNAL; the traceback comes with --debug only."""
    try:
        raise ValueError("inner workings")
    except ValueError as failure:
        report(failure, flags())
        plain = capsys.readouterr().err
        report(failure, flags("debug"))
        debug = capsys.readouterr().err

    assert "INTERNAL" in plain
    assert "Traceback" not in plain
    assert "Traceback" in debug
