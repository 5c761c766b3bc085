"""Read settings from several layers, and record the source of each value.

Order, first wins: command line, environment, credentials directory, config file, default.
An unknown key is rejected in every layer, with file and line if there are any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from rbee.config.credentials import read_credential
from rbee.config.file import ConfigFile
from rbee.contracts import patterns
from rbee.errors import ConfigError
from rbee.spelling import closest


@dataclass(frozen=True, slots=True)
class Layers:
    """The inputs from which settings are read; *flags* are the options of the command line."""

    environ: Mapping[str, str] = field(default_factory=dict)
    file: ConfigFile = field(default_factory=lambda: ConfigFile(None))
    flags: Mapping[str, Any] = field(default_factory=dict)


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# The sources of the reading that is under way: the library asks the class for them, which knows of no reading.
_reading: ContextVar[tuple[PydanticBaseSettingsSource, ...]] = ContextVar("reading", default=())


class LayeredSettings(BaseSettings):
    """The settings of one program. `read` uses all layers; the constructor only its arguments.

    `table` is the table of the config file that holds the settings, None for the top level. `credentials` names the
    file in the credentials directory for a setting. `foreign_keys` and `foreign_env` are settings of other programs in
    the same table, or with the same prefix of environment variables (`env_prefix`); a name in `foreign_env` that ends
    with `_` is a prefix itself.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    table: ClassVar[str | None] = None
    credentials: ClassVar[Mapping[str, str]] = {}
    foreign_keys: ClassVar[tuple[str, ...]] = ()
    foreign_env: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the layers as sources of pydantic-settings."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (*_reading.get(), init_settings)


S = TypeVar("S", bound=LayeredSettings)


def read(settings: type[S], layers: Layers) -> tuple[S, dict[str, str]]:
    """Return the settings, and for each its source: `--port`, `RBEE_HIVE_PORT`, `credential port`, `FILE:7`, `default`.

    Raises ConfigError for the first unknown key or wrong value, with its reason and source; `also` has all others.
    """
    sources = [source(settings, layers) for source in (_Flags, _Environment, _Credentials, _ConfigTable)]
    errors = [*_unknown_variables(settings, layers), *_unknown_keys(settings, layers)]
    token = _reading.set(tuple(sources))
    found: dict[str, str] = {}
    wrong: dict[str, str] = {}
    try:
        for source in sources:
            for key, value in source().items():
                if key not in found and (character := control_character(value)) is not None:
                    wrong[key] = f"holds a control character ({character})"
                found.setdefault(key, source.origin(key))
        values = settings()
    except ValidationError as error:
        for each in error.errors(include_url=False):
            key = str(each["loc"][0]) if each["loc"] else ""
            wrong.setdefault(key, patterns.reason(each))
    except SettingsError as error:
        errors.append(ConfigError(f"{error}."))
    except ConfigError as error:
        errors.append(error)
    finally:
        _reading.reset(token)
    errors += [_error(settings, layers, key, reason, found.get(key)) for key, reason in wrong.items()]
    if errors:
        raise ConfigError.of(errors)
    return values, {key: found.get(key, "default") for key in settings.model_fields}


def control_character(value: object) -> str | None:
    """Return the first control character in a value or in what it holds, as U+0000; tabs and ends of lines are none."""
    if isinstance(value, str):
        found = _CONTROL.search(value)
        return None if found is None else f"U+{ord(found[0]):04X}"
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    return next((character for part in parts if (character := control_character(part)) is not None), None)


class _Flags(InitSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        super().__init__(settings, {key: value for key, value in layers.flags.items() if value is not None})

    def origin(self, key: str) -> str:
        return "--" + key.replace("_", "-")


class _Environment(EnvSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        self._environ = layers.environ
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # The library looks names up in small letters; variables are written in capitals, and others are not ours.
        return {name.lower(): value for name, value in self._environ.items() if name == name.upper()}

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:  # noqa: FBT001 -- the library's signature
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError as error:
            raise ConfigError(f"{field_name}: invalid JSON (from {self.origin(field_name)}).") from error

    def origin(self, key: str) -> str:
        return self.env_prefix + key.upper()


class _Credentials(InitSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        self._names = settings.credentials
        folder = layers.environ.get("CREDENTIALS_DIRECTORY")
        files = {key: Path(folder) / name for key, name in self._names.items()} if folder else {}
        super().__init__(settings, {key: read_credential(file) for key, file in files.items() if file.is_file()})

    def origin(self, key: str) -> str:
        return f"credential {self._names[key]}"


class _ConfigTable(InitSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        self._file, self._table = layers.file, settings.table
        values = _table(settings, layers)
        super().__init__(settings, {key: value for key, value in values.items() if key in settings.model_fields})

    def origin(self, key: str) -> str:
        line = self._file.line(key) if self._table is None else self._file.line(self._table, key)
        return f"{self._file.path}:{line}" if line else str(self._file.path)


def _table(settings: type[LayeredSettings], layers: Layers) -> Mapping[str, Any]:
    return layers.file.data if settings.table is None else layers.file.table(settings.table)


def _path(settings: type[LayeredSettings], key: str) -> tuple[str, ...]:
    return (key,) if settings.table is None else (settings.table, key)


def _unknown_variables(settings: type[LayeredSettings], layers: Layers) -> Iterator[ConfigError]:
    prefix = settings.model_config["env_prefix"]
    known = [prefix + key.upper() for key in settings.model_fields]
    foreign = tuple(name for name in settings.foreign_env if name.endswith("_"))
    for name in layers.environ:
        if name.startswith(prefix) and name not in (*known, *settings.foreign_env) and not name.startswith(foreign):
            advice = _advice(name, known) or "unset it or correct its name."
            yield ConfigError(f"unknown setting {name} in the environment; {advice}")


def _unknown_keys(settings: type[LayeredSettings], layers: Layers) -> Iterator[ConfigError]:
    known = sorted([*settings.model_fields, *settings.foreign_keys])
    where = "at the top level" if settings.table is None else f"in [{settings.table}]"
    for key in _table(settings, layers):
        if key not in known:
            advice = _advice(key, known) or f"known keys: {', '.join(known)}."
            yield layers.file.error(f"unknown key '{key}' {where}; {advice}", *_path(settings, key))


def _advice(name: str, known: Sequence[str]) -> str:
    meant = closest(name, known)
    return "" if meant is None else f"did you mean '{meant}'?"


def _error(settings: type[LayeredSettings], layers: Layers, key: str, reason: str, source: str | None) -> ConfigError:
    """Return the error for the value of a key, which is empty for all together, with where the value was found."""
    if source is None:
        return ConfigError(f"{key}: {reason}" if key else reason)
    if layers.file.path is not None and source.startswith(str(layers.file.path)):
        return layers.file.error(f"{key}: {reason}.", *_path(settings, key))
    return ConfigError(f"{key}: {reason} (from {source}).")
