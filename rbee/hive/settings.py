"""Everything an operator can set about a hive, each with its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from rbee.config.layering import LayeredSettings
from rbee.config.lists import Words
from rbee.contracts import engine
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.hive.models.addresses import AllowedSources
from rbee.hive.models.disk_space import DiskSpace
from rbee.hive.models.limits import GB, DownloadLimits
from rbee.hive.supervision import Policy


class HiveSettings(LayeredSettings):
    """The table `[hive]`, the variables `RBEE_HIVE_*` and the options of `rbee-hive`. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="RBEE_HIVE_")
    table = "hive"
    credentials: ClassVar[Mapping[str, str]] = {"api_key": "hive-api-key", "models_db": "models-db"}
    foreign_env = ("RBEE_HIVE_MARK",)

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; workers listen there too")
    port: int = Field(default=9200, ge=0, le=65535, description="port to listen on; 0 means any free one")
    node: str = Field(default=LOCALHOST_NODE, min_length=1, max_length=253, description="name of this machine")
    home: str | None = Field(default=None, description="folder of catalog, models and logs; default $RBEE_HOME")
    api_key: SecretStr | None = Field(default=None, description="key that the queen shows")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="minimum level to log")
    models_db: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of the catalog; default models.db in the home"
    )
    worker_binary: str | None = Field(default=None, description="path of llm-worker-rbee; default: beside rbee-hive")
    spare_worker: bool = Field(
        default=True,
        description="keep an idle worker process, for a faster start; not on machines with less than 4 GB of memory",
    )
    first_worker_port: int = Field(
        default=8001, ge=0, le=65535, description="first port for workers; 0 means any free one"
    )
    slots: int = Field(default=4, ge=1, le=64, description="requests that a worker serves at once")
    context_length: int = Field(
        default=4096, ge=64, description="tokens of context for each slot, at most what the model was made for"
    )
    cpu_memory_gb: float | None = Field(
        default=None, gt=0, description="GB of memory that workers on the CPU may take in all; default: what is free"
    )
    cache_type: engine.CacheType = "f16"
    flash_attention: engine.FlashAttention = None
    prompt_batch: engine.PromptBatch = None
    speculate: engine.Speculate = 0
    fence_after_s: float = Field(default=60.0, gt=0, description="time without a queen after which workers stop")
    on_queen_lost: Literal["stop-workers", "exit"] = Field(
        default="stop-workers", description="when the fence elapses: stop the workers and wait for a queen, or exit"
    )
    idle_timeout_s: float = Field(default=300.0, gt=0, description="time after which an unused worker is stopped")
    health_interval_s: float = Field(default=30.0, gt=0, description="time between two health checks of a worker")
    bind_timeout_s: float = Field(default=30.0, gt=0, description="time a worker has to bind its port")
    loading_timeout_s: float = Field(default=300.0, gt=0, description="time a worker has to load its model")
    stall_timeout_s: float = Field(default=60.0, gt=0, description="time without a token after which a worker stalls")
    stop_timeout_s: float = Field(default=30.0, gt=0, description="time a worker has to end before it is killed")
    quarantine_s: float = Field(
        default=600.0, gt=0, description="time for which a model or device on which every worker crashes is not used"
    )
    download_stall_s: float = Field(default=60.0, gt=0, description="time without a byte that breaks a download")
    download_max_gb: float = Field(default=1024.0, gt=0, description="size in GB that a model may have at most")
    download_grace_s: float = Field(
        default=30.0, ge=0, description="time for which a download goes on that nobody waits for"
    )
    download_keep_days: float = Field(
        default=7.0, ge=0, description="days for which the part of an unfinished download is kept"
    )
    disk_reserve_gb: float = Field(
        default=2.0, ge=0, description="GB of the disk that downloads leave free, at most 5 % of it"
    )
    allow_private_sources: Words = Field(
        default=(),
        description="hosts and networks with private addresses from which models may be downloaded, "
        "such as mirror.lan, 10.1.0.0/16",
    )
    share_mbps: float | None = Field(
        default=None,
        ge=1,
        description="megabits per second of models that other hives are sent in all; default no bound",
    )
    detect_timeout_s: float = Field(default=5.0, gt=0, description="time a GPU driver has to answer")

    max_connections_per_address: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="connections of one address that have not shown a valid key yet; loopback has no such limit",
    )
    log_max_mb: int = Field(
        default=32, ge=1, le=100_000, description="size in MB at which a log file is rotated; one old copy is kept"
    )

    @model_validator(mode="after")
    def _possible(self) -> HiveSettings:
        AllowedSources.parse(self.allow_private_sources)
        if reason := engine.conflict(self.cache_type, flash_attention=self.flash_attention):
            raise ValueError(reason)
        return self

    def policy(self) -> Policy:
        """Return the part that supervision needs."""
        return Policy(
            bind_s=self.bind_timeout_s,
            loading_s=self.loading_timeout_s,
            health_interval_s=self.health_interval_s,
            stall_s=self.stall_timeout_s,
            graceful_s=self.stop_timeout_s,
            fence_s=self.fence_after_s,
            on_queen_lost=self.on_queen_lost,
        )

    def download_limits(self) -> DownloadLimits:
        """Return the part that downloads need."""
        return DownloadLimits(
            stall_s=self.download_stall_s,
            max_bytes=int(self.download_max_gb * GB),
            space=DiskSpace(int(self.disk_reserve_gb * GB)),
            allowed=AllowedSources.parse(self.allow_private_sources),
            grace_s=self.download_grace_s,
            keep_s=self.download_keep_days * 86_400,
        )
