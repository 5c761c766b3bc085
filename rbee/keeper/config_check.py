"""Check a whole config file: what the keeper reads itself, and what each daemon says of its own table."""

from __future__ import annotations

import subprocess

from rbee.config.file import ConfigFile
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.keeper.model_names import resolve
from rbee.keeper.settings import Settings
from rbee.keeper.spawn import find_program

_PROGRAMS = {"queen": "queen-rbee", "hive": "rbee-hive", "worker": "llm-worker-rbee"}
_LIMIT_S = 30.0


def check_aliases(settings: Settings) -> None:
    """Raise ConfigError for an alias that stands for no model reference."""
    for name in settings.file.table("models"):
        try:
            resolve(name, settings.aliases)
        except RbeeError as error:
            raise settings.file.error(f"{error.message} {error.hint}", "models", name) from error


def check_daemons(file: ConfigFile) -> list[str]:
    """Let each daemon check its table, if the file has one; give the programs that did.

    The keeper imports no daemon: their programs are asked. Raises ConfigError with what the program says.
    """
    checked = []
    for table, program in _PROGRAMS.items():
        if not file.table(table):
            continue
        try:
            command = [find_program(program), "--check-config", str(file.path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise RbeeError(
                ErrorCode.DAEMON_START_FAILED, f"{program} could not check [{table}]: {error}.", hint="Try it by hand."
            ) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"{program} ended with code {done.returncode}"]
            message = next((line for line in lines if line.startswith(program)), lines[-1])
            raise ConfigError(message.removeprefix(f"{program}: "))
        checked.append(program)
    return checked
