"""Read what the queen's files declare to be served: its config file, and the one that the roles write."""

from __future__ import annotations

from pathlib import Path

from rbee.config.file import ConfigFile, read
from rbee.errors import ConfigError, collected
from rbee.queen.serving.declarations import Declared

_TABLE = "served"


def read_declared(config: ConfigFile, served_file: Path | None) -> list[Declared]:
    """Return the declared models. Raises ConfigError, with all that is wrong, each with file and line.

    Args:
        served_file: a file that has only declared models.
    """
    errors: list[ConfigError] = []
    files = [config]
    if served_file is not None:
        with collected(errors):
            files.append(read(served_file.expanduser()))
    with_tables = [file for file in files if file.data.get(_TABLE)]
    if errors or with_tables or any(key != _TABLE for file in files[1:] for key in file.data):
        return _read(files, errors)
    return []


def _read(files: list[ConfigFile], errors: list[ConfigError]) -> list[Declared]:
    from rbee.config import served  # builds models that a queen without declarations does not need

    aliases = files[0].aliases()
    declared = []
    for file in files:
        found, wrong = served.read_tables(file, aliases)
        declared += found
        errors += wrong
    for file in files[1:]:
        errors += [
            file.error(f"'{key}' does not belong here: only tables [{_TABLE}.NAME] do.", key)
            for key in file.data
            if key != _TABLE
        ]
    if errors or (errors := served.contradiction_errors(declared)):
        raise ConfigError.of(errors)
    return [Declared(each.model, "file", each.place) for each in declared]
