"""Check a config file: the keeper's own settings and, through each daemon, its table; check the inventory too."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rbee.config.file import ConfigFile
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError, collected
from rbee.keeper.fleet.inventory import inventory_path, open_inventory
from rbee.keeper.queen.process import require_program
from rbee.keeper.settings import Settings, load
from rbee.model_reference import parse_reference

_PROGRAMS = {"queen-rbee": ("queen", "served"), "rbee-hive": ("hive",), "llm-worker-rbee": ("worker",)}
# A hive gives its workers these; no config file needs to have them.
_GIVEN = {"llm-worker-rbee": ["--model-path", "model.gguf"]}
_GIVEN_ENV = {"llm-worker-rbee": {"RBEE_WORKER_API_KEY": "given by the hive"}}
_LIMIT_S = 30.0
_OF_INVENTORY = ("RBEE_HOME", "RBEE_INVENTORY")


class Checked(NamedTuple):
    """What was found right: the programs that checked the file, and the inventory, None where there is none."""

    programs: list[str]
    inventory: Path | None


def check_all(environ: Mapping[str, str], file: ConfigFile) -> Checked:
    """Check the file and the inventory that it names. Raises ConfigError with everything that is wrong in either."""
    errors: list[ConfigError] = []
    programs = ["rbee-keeper"] if file.path else []
    with collected(errors):
        load(environ, file)
    errors += _wrong_aliases(file)
    for program, tables in _PROGRAMS.items():
        if any(file.data.get(table) for table in tables) and all(
            isinstance(file.data.get(table, {}), dict) for table in tables
        ):
            errors += _refusals(program, file)
            programs.append(program)
    inventory = None
    with suppress(ConfigError):  # which was told above
        settings = _only_inventory(environ, file)
        with collected(errors):
            inventory = check_inventory(settings)
    if errors:
        raise ConfigError.of(errors)
    return Checked(programs, inventory)


def check_inventory(settings: Settings) -> Path | None:
    """Return the inventory once it is found right; None where there is none.

    Raises ConfigError with everything that is wrong in it, with file and line.
    """
    path = inventory_path(settings)
    if not path.exists():
        if settings.keeper.inventory is not None:
            raise ConfigError(f"inventory: there is no {path} (from {settings.sources['inventory']}).")
        return None
    inventory = open_inventory(settings)
    from rbee.fleet import inventory_check
    from rbee.fleet.assets import Assets

    if errors := inventory_check.check_inventory(inventory, Assets.find()):
        raise ConfigError.of(errors)
    return inventory.path


def _only_inventory(environ: Mapping[str, str], file: ConfigFile) -> Settings:
    """Return the settings as if no other key were set but that of the inventory."""
    kept = {name: value for name, value in environ.items() if not name.startswith("RBEE_") or name in _OF_INVENTORY}
    return load(kept, replace(file, data={key: value for key, value in file.data.items() if key == "inventory"}))


def _wrong_aliases(file: ConfigFile) -> Iterator[ConfigError]:
    models = file.data.get("models")
    for name, reference in models.items() if isinstance(models, dict) else ():
        if isinstance(reference, str) and (text := reference.strip()):
            try:
                parse_reference(text)
            except RbeeError as error:
                yield file.error(f"the alias {name!r}: {error.message}", "models", name)


def _refusals(program: str, file: ConfigFile) -> Iterator[ConfigError]:
    """Yield what a daemon refuses of its tables. The keeper imports no daemon: their programs are asked."""
    command = [require_program(program), "--check-config", str(file.path), *_GIVEN.get(program, [])]
    try:
        env = {**_GIVEN_ENV.get(program, {}), **os.environ}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=env)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise RbeeError(
            ErrorCode.DAEMON_START_FAILED,
            f"{program} could not check its tables: {error}.",
            hint=f"Run it by hand: {program} --check-config {file.path}",
        ) from error
    if done.returncode == 0:
        return
    lines = done.stderr.splitlines() or [f"{program} ended with code {done.returncode}"]
    # The last line is the hint. A program that broke has none of its own lines.
    told = [line.removeprefix(f"{program}: ") for line in lines if line.startswith(f"{program}: ")][:-1] or lines[-1:]
    for line in told:
        at = re.fullmatch(rf"{re.escape(str(file.path))}:(\d+): (.*)", line)
        yield ConfigError(at[2], path=str(file.path), line=int(at[1])) if at else ConfigError(line)
