"""Merge the layers that a setting can come from, and remember which one it came from.

Order, first wins: command line, environment, credentials directory, config file, default.
A key that no setting has is refused in every layer, with the file and the line where there is one.
Written here rather than taken from pydantic-settings because `config show` needs the source of each value,
errors need the line of the file, and a command that only reads one URL should not pay for pydantic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rbee.config.file import ConfigFile
from rbee.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """A setting's raw value, and where it was found in words (`--port`, `RBEE_HIVE_PORT`, `config.toml:7`)."""

    value: Any
    source: str


def merge(
    fields: Collection[str],
    *,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    env_prefix: str,
    file: ConfigFile,
    table: str | None,
    credentials: Mapping[str, str] | None = None,
    foreign_env: Iterable[str] = (),
    foreign_keys: Iterable[str] = (),
) -> dict[str, SourcedValue]:
    """Give for each of *fields* the value of the first layer that has one; fields without any are left out.

    Args:
        fields: the settings' names, such as `port`.
        flags: what the command line gave; None means not given.
        env_prefix: `RBEE_HIVE_` finds `port` in `RBEE_HIVE_PORT`.
        table: the file's table that holds the fields; None means its top level.
        credentials: setting's name -> file name in `$CREDENTIALS_DIRECTORY`.
        foreign_env: variables with the prefix that belong to somebody else.
        foreign_keys: keys of the table that belong to somebody else.

    Raises:
        ConfigError: an unknown key.
    """
    found: dict[str, SourcedValue] = {}
    in_file = file.data if table is None else file.table(table)
    for key in in_file:
        if key not in fields and key not in foreign_keys:
            where = "at the top level" if table is None else f"in [{table}]"
            known = ", ".join(sorted([*fields, *foreign_keys]))
            path = (key,) if table is None else (table, key)
            raise file.error(f"unknown key '{key}' {where}; known are: {known}.", *path)
        if key in fields:
            line = file.line(key) if table is None else file.line(table, key)
            found[key] = SourcedValue(in_file[key], f"{file.path}:{line}" if line else str(file.path))
    folder = environ.get("CREDENTIALS_DIRECTORY")
    for key, name in (credentials or {}).items():
        path_ = Path(folder) / name if folder else None
        if path_ is not None and path_.is_file():
            found[key] = SourcedValue(path_.read_text(encoding="utf-8").strip(), f"credential {name}")
    foreign = set(foreign_env)
    for name, text in environ.items():
        if not name.startswith(env_prefix) or name in foreign:
            continue
        key = name.removeprefix(env_prefix).lower()
        if key not in fields:
            raise ConfigError(f"unknown setting {name} in the environment; unset it or correct its name.")
        found[key] = SourcedValue(text, name)
    for key, value in flags.items():
        if value is not None:
            found[key] = SourcedValue(value, "--" + key.replace("_", "-"))
    return found


def validate(model: type[S], values: Mapping[str, SourcedValue], file: ConfigFile, table: str | None = None) -> S:
    """Build the settings. Raises ConfigError that names key, reason and source of the first wrong value."""
    from pydantic import ValidationError

    raw = {key: _decode(model, key, value) for key, value in values.items()}
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        value = values.get(key)
        message = first["msg"].removeprefix("Value error, ")
        if value is None:
            raise ConfigError(f"{key}: {message}" if key else message) from error
        if file.path is not None and value.source.startswith(str(file.path)):
            raise file.error(f"{key}: {message}.", *((table, key) if table else (key,))) from error
        raise ConfigError(f"{key}: {message} (from {value.source}).") from error


def sources(model: type[BaseModel], values: Mapping[str, SourcedValue]) -> dict[str, str]:
    """Give the source of every setting, `default` for those that no layer has."""
    return {key: values[key].source if key in values else "default" for key in model.model_fields}


def environment() -> dict[str, str]:
    """Take a copy of the process's environment."""
    return dict(os.environ)


def _decode(model: type[BaseModel], key: str, value: SourcedValue) -> Any:
    """Read JSON from the environment where the field is a list or a table; all else is pydantic's job."""
    annotation = str(model.model_fields[key].annotation)
    if isinstance(value.value, str) and annotation.startswith(("list[", "dict[", "tuple[")):
        try:
            return json.loads(value.value)
        except ValueError as error:
            raise ConfigError(f"{key}: not JSON (from {value.source}).") from error
    return value.value
