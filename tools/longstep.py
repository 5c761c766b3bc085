"""Run a step that takes minutes, and show its progress and elapsed time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL = 8192
_LOG_INTERVAL_S = 30.0
_TERMINAL_INTERVAL_S = 1.0


class StepError(Exception):
    """Raised when a command of the setup fails; the message is for the user."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def run_quietly(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str:
    """Run a short command and return its output. Raises StepError with the output if it fails."""
    run = subprocess.run(
        [str(part) for part in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        raise StepError(f"{' '.join(map(str, command))}\n{run.stdout.rstrip()}")
    return run.stdout


def run_with_progress(
    what: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command with its output in *log*, and print its steps and elapsed time.

    Raises StepError with the end of the log if it fails. Ctrl-C terminates the command too.
    """
    start = time.monotonic()
    live = sys.stdout.isatty()
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, cwd=cwd
        )
    try:
        while True:
            try:
                code = process.wait(_TERMINAL_INTERVAL_S if live else _LOG_INTERVAL_S)
                break
            except subprocess.TimeoutExpired:
                line = f"    {what}: {_passed(start)}{_steps(log)}"
                print(f"\r{line:<79}" if live else line, end="" if live else "\n", flush=True)
    except BaseException:
        process.terminate()
        process.wait(10)
        raise
    if live:
        print("\r" + " " * 79 + "\r", end="")
    if code:
        raise StepError(f"{what} failed after {_passed(start)}. Log: {log}. Its last lines:\n{_tail(log, 25)}")
    say(f"    {what}: done in {_passed(start)}")


def _passed(start: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _steps(log: Path) -> str:
    """Return ninja's "[91/206]" at the end of the log as text."""
    found = re.findall(r"\[(\d+)/(\d+)\]", _end(log))
    return f", step {found[-1][0]} of {found[-1][1]}" if found else ""


def _tail(log: Path, lines: int) -> str:
    return "\n".join(_end(log).splitlines()[-lines:])


def _end(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")
