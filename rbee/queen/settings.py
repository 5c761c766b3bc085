"""What can be set on a queen: each setting once, with its bounds, default and meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from rbee.config.layering import LayeredSettings
from rbee.config.lists import Words
from rbee.daemonkit.cli import Program

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#*]+")


class QueenSettings(LayeredSettings):
    """The table `[queen]`, the variables `RBEE_QUEEN_*` and the options of `queen-rbee`. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="RBEE_QUEEN_")
    table = "queen"
    credentials: ClassVar[Mapping[str, str]] = {"database_url": "database-url"}
    foreign_env = ("RBEE_QUEEN_URL",)  # the keeper's own setting

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    home: Path | None = Field(default=None, description="folder for state and logs; default $RBEE_HOME, then ~/.rbee")
    api_key_file: Path | None = Field(
        default=None, description="file with the key that opens the queen; default secrets/api-key in the home"
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of the database; default beehives.db in the home"
    )
    served_file: Path | None = Field(
        default=None,
        description="file with tables [served.NAME] of declared models, besides those of the config file; "
        "both are read again upon SIGHUP",
    )
    local_hive: bool = Field(default=True, description="run a hive on this machine as the node 'localhost'")
    local_hive_port: int = Field(
        default=9200, ge=0, le=65535, description="port of the local hive; where it is taken the next free one is used"
    )
    hive_start_timeout_s: float = Field(
        default=30.0, ge=1.0, le=600.0, description="time for the local hive to start and to open its channel"
    )
    loading_timeout_s: float = Field(
        default=310.0,
        ge=1.0,
        le=86_400.0,
        description="time for a worker to load a model; keep it above the hives' limit, whose error says more",
    )
    no_token_timeout_s: float = Field(
        default=60.0, ge=1.0, le=3600.0, description="time a stream may go without a token"
    )
    drain_timeout_s: float = Field(
        default=30.0, ge=0.0, le=3600.0, description="time that running tasks have to finish when the queen ends"
    )
    leave_hives_on_signal: bool = Field(
        default=False,
        description="let the hives of other machines and their workers go on when a signal ends the queen, "
        "so that one that is restarted adopts them; a shutdown by request still stops them",
    )
    max_tasks: int = Field(default=1000, ge=1, le=100_000, description="tasks accepted at the same time")
    max_tasks_per_client: int | None = Field(
        default=None, ge=1, le=100_000, description="tasks accepted of one client at the same time; default: no limit"
    )
    max_connections_per_address: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="connections of one address that have not shown a valid key yet; loopback has no such limit",
    )
    queue_timeout_s: float = Field(
        default=300.0,
        ge=1.0,
        le=86_400.0,
        description="time for which a request that waited for a cold start is held until a slot is free",
    )
    cors_origins: Words = Field(
        default=(),
        description="origins whose pages a browser may let use the queen, such as https://chat.example.org; * for any; "
        "default: none",
    )
    usage_keep_days: int = Field(
        default=400, ge=1, le=36_500, description="days for which is kept what clients have used, today among them"
    )
    log_max_mb: int = Field(
        default=32, ge=1, le=100_000, description="size in MB at which the log file is rotated; one old copy is kept"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="minimum level to log")

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin[:100]!r} is no origin; write it as browsers do: scheme, host and port if it is a special "
                    "one, without a path, such as https://chat.example.org"
                )
        return value


PROGRAM: Final = Program(
    name="queen-rbee",
    settings=QueenSettings,
    description="Registers nodes, places tasks on workers and relays their answers.",
)
