"""Start a queen: as a child that ends with this process, or detached, as a daemon."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rbee import programs
from rbee.client.blocking import split_url
from rbee.config.credentials import ensure_api_key
from rbee.config.paths import storage_error
from rbee.contracts.errors import EXIT_CODES, ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.settings import Settings
from rbee.lifeline import Lifeline
from rbee.logfile import tail

PROGRAM = "queen-rbee"
LOG_TAIL_LINES = 8
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_KILL_AFTER_S = 5.0
_POLL_S = 0.05


def require_program(name: str) -> str:
    """Return the path of a program of rbee. Raises RbeeError where it is not installed, or not executable."""
    return str(programs.require_program(name, "Install it: pip install 'rbee[local]'"))


def log_path(settings: Settings) -> Path:
    """Return where the log of a queen from this keeper is."""
    return settings.paths.logs / f"{PROGRAM}.log"


class ChildQueen:
    """A queen that is this process's child and cannot outlive it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lifeline = Lifeline()
        try:
            self._process = _popen(settings, self._lifeline)
        except BaseException:
            self._lifeline.close()
            raise
        self._lifeline.spawned()

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def wait_until_serving(self) -> None:
        """Wait for its announcement. Raises the RbeeError that it announces, or one with the end of its log."""
        limit = self._settings.keeper.start_timeout_s
        try:
            message = self._lifeline.read(limit)
        except TimeoutError as error:
            raise start_error(self._settings, f"did not start within {limit:.0f} s") from error
        if message is not None and "port" in message:
            return
        refusal = RbeeError.from_body(message)
        if refusal is not None:
            raise refusal
        code = self._process.wait(_KILL_AFTER_S)
        raise end_error(self._settings, code)

    def wait_until_gone(self, limit_s: float) -> bool:
        """Wait until it has ended; return whether that came within the limit."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        self._lifeline.close()
        return True

    def kill(self) -> None:
        """End it and everything that it started at once."""
        self._lifeline.close()
        try:
            self._process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_KILL_AFTER_S)


def start_detached(settings: Settings, answers: Callable[[], bool], record: Callable[[int], None]) -> int:
    """Start a queen that outlives this process; return its process id as soon as *answers* returns True.

    *record* is called with it then. If that fails, no queen is left.
    """
    log = log_path(settings)
    log_size_before = log.stat().st_size if log.exists() else 0
    process = _popen(settings, None)
    limit = settings.keeper.start_timeout_s
    deadline = time.monotonic() + limit
    try:
        while not answers():
            if process.poll() is not None:
                raise end_error(settings, process.returncode, log_size_before)
            if time.monotonic() > deadline:
                raise start_error(settings, f"did not start within {limit:.0f} s", log_size_before)
            time.sleep(_POLL_S)
        record(process.pid)
    except BaseException:
        process.kill()
        process.wait(_KILL_AFTER_S)
        raise
    # It is detached from here on: the interpreter must not warn that it still runs.
    process.returncode = 0
    return process.pid


def end_error(settings: Settings, exit_code: int, log_size_before: int = 0) -> RbeeError:
    """Build the error for a queen that ended before it served."""
    if exit_code == EXIT_CODES[ErrorCode.DISK_FULL]:  # its log may have had no room for the reason either
        home = str(settings.paths.home)
        return RbeeError(
            ErrorCode.DISK_FULL,
            f"The queen could not start: no space is left on the device for {home}.",
            details={"path": home},
        )
    return start_error(settings, f"ended with code {exit_code} before it served", log_size_before)


def start_error(settings: Settings, what: str, log_size_before: int = 0) -> RbeeError:
    """Build the error for a queen that did not start, with the last lines of its log."""
    log = log_path(settings)
    return RbeeError(
        ErrorCode.DAEMON_START_FAILED,
        f"The queen {what}; its log is {log}.",
        details={"log_tail": tail(log, LOG_TAIL_LINES, start=log_size_before)},
    )


def _popen(settings: Settings, lifeline: Lifeline | None) -> subprocess.Popen[bytes]:
    at = split_url(settings.queen_url)
    if at.hostname not in _LOCAL_HOSTS or at.scheme != "http":
        raise RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"No queen responds at {settings.queen_url}, and rbee-keeper can start one only on this machine.",
            details={"url": settings.queen_url},
            hint="Start it on that machine (rbee-keeper queen start, or daemon start there), "
            "or set queen_url to http://127.0.0.1:PORT.",
        )
    ensure_api_key(settings.paths, settings.environ, settings.keeper.api_key_file)
    log = log_path(settings)
    settings.paths.make(log.parent)
    # A new session, so that Ctrl-C at the terminal reaches the keeper alone, which then stops its queen in order.
    command = [require_program(PROGRAM), "--host", at.hostname, "--port", str(at.port)]
    try:
        with log.open("ab") as stderr:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, **(lifeline.env() if lifeline else {})},
                pass_fds=(lifeline.child_fd,) if lifeline else (),
                start_new_session=True,
            )
    except OSError as error:
        if error.filename == command[0]:
            raise programs.start_error(command[0], error) from error
        raise storage_error(error, log) from error
