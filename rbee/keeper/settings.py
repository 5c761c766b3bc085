"""The keeper's settings, and the model aliases of the config file.

Layers, first wins: environment (`RBEE_QUEEN_URL`), config file (`queen_url`), default. The options of commands
(`--model`, `--node`) are no settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from rbee.client.blocking import split_url
from rbee.config.credentials import find_api_key
from rbee.config.file import BUILT_IN_ALIASES, ConfigFile, find
from rbee.config.layering import LayeredSettings, Layers, read
from rbee.config.paths import Paths
from rbee.errors import ConfigError, RbeeError, collected

DAEMON_TABLES = ("queen", "hive", "worker", "served")
# What follows the address in that of a request; a proxy may have put a path of its own before it.
_ROUTE: Final = re.compile(r"(/v[12](/.*)?|/health|/metrics|/openapi\.json|/*[?#].*)$")


def _queen_url(text: str) -> str:
    try:
        split_url(text)
    except RbeeError as error:
        raise ValueError(f"must be an address such as http://127.0.0.1:8080, not {text!r}") from error
    # The base URL of OpenAI clients is often copied here, and so is the address of one of their requests.
    base = _ROUTE.sub("", text.rstrip("/"))
    if base != text.rstrip("/").removesuffix("/v1"):
        raise ValueError(f"must be the address of the queen, {base!r}, without the path of a request: not {text!r}")
    return base


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number of seconds")
    return value


_Text = Annotated[str, Field(min_length=1)]
_File = Annotated[Path, AfterValidator(Path.expanduser)]
_Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, le=3600, allow_inf_nan=False)]


class KeeperSettings(LayeredSettings):
    """The top level of the config file, and the variables `RBEE_*`. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="RBEE_", str_strip_whitespace=True)
    foreign_keys = ("models", "remote", *DAEMON_TABLES)
    foreign_env = (
        "RBEE_HOME",
        "RBEE_CONFIG",
        "RBEE_API_KEY",
        "RBEE_LIFELINE_FD",
        "RBEE_REMOTE_",
        "RBEE_QUEEN_",
        "RBEE_HIVE_",
        "RBEE_WORKER_",
        "RBEE_TEST_",
        "RBEE_BUILD_",
        "RBEE_BENCH_",
    )

    queen_url: Annotated[_Text, AfterValidator(_queen_url)] = Field(
        default="http://127.0.0.1:8080", description="Where the queen listens; one is started there if none does."
    )
    inventory: _File | None = Field(
        default=None,
        description="The Ansible inventory; without it, inventory/ in the home.",
        examples=["~/.rbee/inventory"],
    )
    api_key_file: _File | None = Field(
        default=None,
        description="The file with the queen's key; without it, secrets/api-key in the home.",
        examples=["~/.rbee/secrets/api-key"],
    )
    start_timeout_s: _Seconds = Field(default=30.0, description="How long a queen may take to start, in seconds.")
    stop_timeout_s: _Seconds = Field(
        default=90.0, description="How long a queen may take to stop everything that it runs, in seconds."
    )


class RemoteSettings(LayeredSettings):
    """The table `[remote]`, and the variables `RBEE_REMOTE_*`: where things are on the other machines."""

    model_config = SettingsConfigDict(env_prefix="RBEE_REMOTE_", str_strip_whitespace=True)
    table = "remote"

    binary_path: _Text | None = Field(
        default=None, description="The hive program on the machines.", examples=["/opt/rbee/current/bin/rbee-hive"]
    )
    git_repo_dir: _Text | None = Field(
        default=None, description="The checkout of rbee on the machines.", examples=["/opt/rbee/src"]
    )


class Settings(NamedTuple):
    """What the keeper runs with; `sources` says where each value came from, those of `remote` as `remote.KEY`.

    `served` are the names of models that the file declares for a queen, and of their presets.
    """

    file: ConfigFile
    paths: Paths
    keeper: KeeperSettings
    remote: RemoteSettings
    sources: dict[str, str]
    aliases: dict[str, str]
    served: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def queen_url(self) -> str:
        """Where the queen is, without a slash at the end."""
        return self.keeper.queen_url

    @property
    def values(self) -> dict[str, Any]:
        """All values by the names that `sources` has."""
        remote = {f"remote.{key}": value for key, value in self.remote.model_dump(mode="json").items()}
        return self.keeper.model_dump(mode="json") | remote

    def api_key(self) -> str | None:
        """Find the key that opens the queen; None where none was made yet."""
        return find_api_key(self.paths, self.environ, self.keeper.api_key_file)


def load(environ: Mapping[str, str], file: ConfigFile | None = None) -> Settings:
    """Read the settings. Raises ConfigError for an unknown key or a wrong value, with file and line, and for all."""
    file = find(environ) if file is None else file
    layers = Layers(environ, file)
    errors: list[ConfigError] = []
    with collected(errors):
        keeper, sources = read(KeeperSettings, layers)
    with collected(errors):
        remote, remote_sources = read(RemoteSettings, layers)
    for table in DAEMON_TABLES:
        with collected(errors):
            file.table(table)
    with collected(errors):
        aliases = _aliases(file)
    if errors:
        raise ConfigError.of(errors)
    sources |= {f"remote.{key}": source for key, source in remote_sources.items()}
    return Settings(file, Paths.of(environ), keeper, remote, sources, aliases, _served_names(file), environ)


def _aliases(file: ConfigFile) -> dict[str, str]:
    models = file.table("models")
    wrong = [name for name, reference in models.items() if not isinstance(reference, str) or not reference.strip()]
    if wrong:
        raise ConfigError.of(
            [file.error(f"the alias {name!r} must be a model reference in quotes.", "models", name) for name in wrong]
        )
    return {**BUILT_IN_ALIASES, **{name: reference.strip() for name, reference in models.items()}}


def _served_names(file: ConfigFile) -> tuple[str, ...]:
    """Return the names that the file declares, right or not: the queen judges that."""
    tables = file.table("served")
    presets = [table.get("presets") for table in tables.values() if isinstance(table, Mapping)]
    return (*tables, *(name for each in presets if isinstance(each, Mapping) for name in each))
