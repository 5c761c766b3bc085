"""Check a config file: the keeper's own settings and, through each daemon, its table; check the inventory too."""

from __future__ import annotations

import os
import subprocess

from rbee.config.file import ConfigFile
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.keeper.fleet.inventory import inventory_path, open_inventory
from rbee.keeper.model_names import resolve
from rbee.keeper.queen.process import require_program
from rbee.keeper.settings import Settings
from rbee.keeper.ui.output import Output

_PROGRAMS = {"queen": "queen-rbee", "hive": "rbee-hive", "worker": "llm-worker-rbee"}
# A hive gives its workers these; no config file needs to have them.
_GIVEN = {"worker": ["--model-path", "model.gguf"]}
_GIVEN_ENV = {"worker": {"RBEE_WORKER_API_KEY": "given by the hive"}}
_LIMIT_S = 30.0


def check_aliases(settings: Settings) -> None:
    """Raise ConfigError for an alias that does not stand for a model reference."""
    for name in settings.file.table("models"):
        try:
            resolve(name, settings.aliases)
        except RbeeError as error:
            raise settings.file.error(f"{error.message} {error.hint}", "models", name) from error


def check_daemons(file: ConfigFile) -> list[str]:
    """Run the check of each daemon whose table the file has; return the programs that checked.

    The keeper imports no daemon: their programs are asked. Raises ConfigError with what the program says.
    """
    checked = []
    for table, program in _PROGRAMS.items():
        if not file.table(table):
            continue
        try:
            command = [require_program(program), "--check-config", str(file.path), *_GIVEN.get(table, [])]
            env = {**_GIVEN_ENV.get(table, {}), **os.environ}
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=env)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise RbeeError(
                ErrorCode.DAEMON_START_FAILED,
                f"{program} could not check [{table}]: {error}.",
                hint=f"Run it by hand: {program} --check-config {file.path}",
            ) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"{program} ended with code {done.returncode}"]
            message = next((line for line in lines if line.startswith(program)), lines[-1])
            raise ConfigError(message.removeprefix(f"{program}: "))
        checked.append(program)
    return checked


def check_inventory(settings: Settings, out: Output) -> str | None:
    """Return the inventory's file once it is found right; None where there is none.

    Raises ConfigError with file and line of the first problem, after telling all others.
    """
    path = inventory_path(settings)
    if not path.exists():
        if settings.keeper.inventory is not None:
            raise ConfigError(f"inventory: there is no {path} (from {settings.sources['inventory']}).")
        return None
    inventory = open_inventory(settings)
    from rbee.fleet.assets import Assets
    from rbee.fleet.inventory_check import check_machines
    from rbee.fleet.schema import check
    from rbee.fleet.settings_check import check_settings

    assets = Assets.find()
    problems = check(inventory, assets) or check_machines(inventory) or check_settings(inventory, assets)
    for problem in problems[1:]:
        out.error([f"Error: {problem}"])
    if problems:
        raise problems[0].error()
    return str(inventory.path)
