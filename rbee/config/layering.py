"""Read settings from several layers, and record the source of each value.

Order, first wins: command line, environment, credentials directory, config file, default.
An unknown key is rejected in every layer, with file and line if there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

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
from rbee.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Layers:
    """The inputs from which settings are read; *flags* are the options of the command line."""

    environ: Mapping[str, str] = field(default_factory=dict)
    file: ConfigFile = field(default_factory=lambda: ConfigFile(None))
    flags: Mapping[str, Any] = field(default_factory=dict)


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

    Raises ConfigError for an unknown key, and for the first wrong value with its reason and source.
    """
    sources = [source(settings, layers) for source in (_Flags, _Environment, _Credentials, _ConfigTable)]
    token = _reading.set(tuple(sources))
    found: dict[str, str] = {}
    try:
        found = {key: source.origin(key) for source in reversed(sources) for key in source()}
        return settings(), {key: found.get(key, "default") for key in settings.model_fields}
    except ValidationError as error:
        raise _wrong_value(settings, layers, error, found) from error
    except SettingsError as error:
        raise ConfigError(f"{error}.") from error
    finally:
        _reading.reset(token)


class _Flags(InitSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        super().__init__(settings, {key: value for key, value in layers.flags.items() if value is not None})

    def origin(self, key: str) -> str:
        return "--" + key.replace("_", "-")


class _Environment(EnvSettingsSource):
    def __init__(self, settings: type[LayeredSettings], layers: Layers) -> None:
        self._environ = layers.environ
        super().__init__(settings)
        known = {self.origin(key) for key in settings.model_fields}
        prefixes = tuple(name for name in settings.foreign_env if name.endswith("_"))
        for name in layers.environ:
            foreign = name in settings.foreign_env or name.startswith(prefixes)
            if name.startswith(self.env_prefix) and name not in known and not foreign:
                raise ConfigError(f"unknown setting {name} in the environment; unset it or correct its name.")

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
        values = self._file.data if self._table is None else self._file.table(self._table)
        for key in values:
            if key not in settings.model_fields and key not in settings.foreign_keys:
                where = "at the top level" if self._table is None else f"in [{self._table}]"
                known = ", ".join(sorted([*settings.model_fields, *settings.foreign_keys]))
                raise self._file.error(f"unknown key '{key}' {where}; known keys: {known}.", *_path(settings, key))
        super().__init__(settings, {key: value for key, value in values.items() if key in settings.model_fields})

    def origin(self, key: str) -> str:
        line = self._file.line(key) if self._table is None else self._file.line(self._table, key)
        return f"{self._file.path}:{line}" if line else str(self._file.path)


def _path(settings: type[LayeredSettings], key: str) -> tuple[str, ...]:
    return (key,) if settings.table is None else (settings.table, key)


def _wrong_value(
    settings: type[LayeredSettings], layers: Layers, error: ValidationError, found: Mapping[str, str]
) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    source = found.get(key)
    if source is None:
        return ConfigError(f"{key}: {message}" if key else message)
    if layers.file.path is not None and source.startswith(str(layers.file.path)):
        return layers.file.error(f"{key}: {message}.", *_path(settings, key))
    return ConfigError(f"{key}: {message} (from {source}).")
