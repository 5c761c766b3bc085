"""The keeper's settings: each declared once, here, with its default, its bounds and its sentence.

Layers, first wins: environment (`RBEE_QUEEN_URL`), config file (`queen_url`), default. The command line's own options
(`--model`, `--node`) are no settings. Checked by hand rather than by pydantic, which would double the time of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rbee.client.blocking import split_url
from rbee.config.credentials import find_api_key
from rbee.config.file import BUILT_IN_ALIASES, ConfigFile, find
from rbee.config.layering import SourcedValue, merge
from rbee.config.paths import Paths
from rbee.errors import ConfigError, RbeeError

DAEMON_TABLES = ("queen", "hive", "worker")
# Variables that begin with RBEE_ and are read by somebody else.
_FOREIGN_ENV = ("RBEE_HOME", "RBEE_CONFIG", "RBEE_API_KEY", "RBEE_LIFELINE_FD")
_FOREIGN_ENV_PREFIXES = (
    "RBEE_REMOTE_",
    "RBEE_QUEEN_",
    "RBEE_HIVE_",
    "RBEE_WORKER_",
    "RBEE_TEST_",
    "RBEE_BUILD_",
    "RBEE_BENCH_",
)


class Setting(NamedTuple):
    """One setting: its default, how its text is read, its sentence, and an example where the default is nothing."""

    default: Any
    read: Callable[[Any], Any]
    help: str
    example: str = ""


def _url(value: Any) -> str:
    text = _text(value)
    try:
        split_url(text)
    except RbeeError as error:
        raise ValueError("must be an address such as http://127.0.0.1:8080") from error
    return text.rstrip("/")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def _path(value: Any) -> str:
    return str(Path(_text(value)).expanduser())


def _seconds(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError("must be a number of seconds") from error
    if not 0 < seconds <= 3600:
        raise ValueError("must be more than 0 and at most 3600 seconds")
    return seconds


SETTINGS: dict[str, Setting] = {
    "queen_url": Setting("http://127.0.0.1:8080", _url, "Where the queen listens; one is started there if none does."),
    "inventory": Setting(
        None, _path, "The Ansible inventory; without it, inventory/ in the home.", "~/.rbee/inventory"
    ),
    "api_key_file": Setting(
        None,
        _path,
        "The file with the queen's key; without it, secrets/api-key in the home.",
        "~/.rbee/secrets/api-key",
    ),
    "start_timeout_s": Setting(30.0, _seconds, "How long a queen may take to start, in seconds."),
    "stop_timeout_s": Setting(90.0, _seconds, "How long a queen may take to stop all that is hers, in seconds."),
}
REMOTE: dict[str, Setting] = {
    "binary_path": Setting(None, _text, "The hive program on the machines.", "/opt/rbee/current/bin/rbee-hive"),
    "git_repo_dir": Setting(None, _text, "The checkout of rbee on the machines.", "/opt/rbee/src"),
}
SECRETS = ("api_key",)


class Settings(NamedTuple):
    """What the keeper runs with, and where each value came from."""

    file: ConfigFile
    paths: Paths
    values: dict[str, Any]
    sources: dict[str, str]
    aliases: dict[str, str]
    environ: Mapping[str, str]

    @property
    def queen_url(self) -> str:
        """Where the queen is."""
        return str(self.values["queen_url"])

    @property
    def key_file(self) -> Path | None:
        """Where the key is kept, if a setting says so."""
        return Path(self.values["api_key_file"]) if self.values["api_key_file"] else None

    def api_key(self) -> str | None:
        """Find the key that opens the queen; None where none was made yet."""
        return find_api_key(self.paths, self.environ, self.key_file)


def load(environ: Mapping[str, str], file: ConfigFile | None = None) -> Settings:
    """Read the settings. Raises ConfigError for an unknown key or a wrong value, with file and line."""
    file = find(environ) if file is None else file
    foreign_env = [
        name
        for name in environ
        if name in _FOREIGN_ENV
        or (name.startswith(_FOREIGN_ENV_PREFIXES) and name.removeprefix("RBEE_").lower() not in SETTINGS)
    ]
    merged = merge(
        SETTINGS,
        flags={},
        environ=environ,
        env_prefix="RBEE_",
        file=file,
        table=None,
        foreign_env=foreign_env,
        foreign_keys=("models", "remote", *DAEMON_TABLES),
    )
    remote = merge(REMOTE, flags={}, environ=environ, env_prefix="RBEE_REMOTE_", file=file, table="remote")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for table, settings, found in (("", SETTINGS, merged), ("remote.", REMOTE, remote)):
        for key, setting in settings.items():
            values[table + key] = _read(setting, table + key, found.get(key), file)
            sources[table + key] = found[key].source if key in found else "default"
    for table in DAEMON_TABLES:
        file.table(table)
    return Settings(file, Paths.of(environ), values, sources, _aliases(file), environ)


def _read(setting: Setting, key: str, value: SourcedValue | None, file: ConfigFile) -> Any:
    if value is None:
        return setting.default
    try:
        return setting.read(value.value)
    except ValueError as error:
        if file.path is not None and value.source.startswith(str(file.path)):
            raise file.error(f"{key} {error}, not {value.value!r}.", *key.split(".")) from error
        raise ConfigError(f"{key} {error}, not {value.value!r} (from {value.source}).") from error


def _aliases(file: ConfigFile) -> dict[str, str]:
    aliases = dict(BUILT_IN_ALIASES)
    for name, reference in file.table("models").items():
        if not isinstance(reference, str) or not reference.strip():
            raise file.error(f"the alias {name!r} must be a model reference in quotes.", "models", name)
        aliases[name] = reference.strip()
    return aliases
