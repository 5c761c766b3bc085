"""The worker's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from rbee.config.layering import LayeredSettings
from rbee.contracts import engine as choices
from rbee.contracts.devices import Backend
from rbee.contracts.patterns import IDENTIFIER
from rbee.worker.engine.protocol import EngineOptions


class WorkerSettings(LayeredSettings):
    """One model on one device: table `[worker]`, variables `RBEE_WORKER_*`, options of `llm-worker-rbee`.

    Times in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="RBEE_WORKER_")
    table = "worker"
    credentials: ClassVar[Mapping[str, str]] = {"api_key": "worker-api-key"}

    worker_id: str = Field(
        default_factory=lambda: f"worker-{os.getpid()}",
        pattern=IDENTIFIER,
        description="worker name",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8001, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    model_path: Path = Field(description="the GGUF file to load")
    model_ref: str = Field(default="", max_length=2048, description="name of the model; default: its path")
    backend: Backend = Field(default=Backend.CPU, description="cuda, metal or cpu")
    device: int = Field(default=0, ge=0, description="index of the device within the backend")
    slots: int = Field(default=4, ge=1, le=64, description="concurrent requests")
    context_length: int | None = Field(
        default=None, ge=64, le=2**24, description="tokens per slot; default: the model's own, 4096 at most"
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="compute threads; default: physical cores")
    prompt_batch: choices.PromptBatch = None
    cache_type: choices.CacheType = "f16"
    flash_attention: choices.FlashAttention = None
    speculate: choices.Speculate = 0
    chat_template_file: Path | None = Field(
        default=None, description="file with the chat template to use instead of the model's own"
    )
    mmap: bool = Field(default=True, description="map the model file instead of reading it")
    drain_s: float = Field(
        default=30.0, ge=0, le=3600, description="seconds for running requests to finish at shutdown"
    )
    api_key: SecretStr | None = Field(default=None, description="bearer key required by this worker")
    callback_url: str | None = Field(default=None, description="URL that receives the report that the port is bound")
    confine: bool = Field(
        default=True, description="take from the process what its work does not need (Linux: Landlock)"
    )
    engine: Literal["llama", "fake"] = Field(default="llama", description="inference engine; fake is for tests")
    fake: dict[str, Any] = Field(default_factory=dict, description="behaviour of the fake engine")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="minimum level to log")

    @model_validator(mode="after")
    def _possible(self) -> WorkerSettings:
        if reason := choices.conflict(self.cache_type, flash_attention=self.flash_attention):
            raise ValueError(reason)
        if self.chat_template_file is not None and not self.chat_template_file.is_file():
            raise ValueError(f"there is no chat template {self.chat_template_file}")
        if self.api_key is None or not self.api_key.get_secret_value():
            raise ValueError("a worker needs a key; set RBEE_WORKER_API_KEY")
        return self

    @property
    def key(self) -> str:
        """Return the bearer key in clear."""
        assert self.api_key is not None
        return self.api_key.get_secret_value()

    @property
    def name(self) -> str:
        """Return the model's reference, else its path."""
        return self.model_ref or str(self.model_path)

    @property
    def prompt_tokens_per_step(self) -> int:
        """Return the maximum of prompt tokens in one step."""
        return choices.prompt_tokens(self.backend, self.prompt_batch)

    def engine_options(self) -> EngineOptions:
        """Return the options of the engine."""
        return EngineOptions(
            model_path=self.model_path,
            backend=self.backend,
            device=self.device,
            slots=self.slots,
            context=self.context_length,
            threads=self.threads,
            batch_tokens=self.prompt_tokens_per_step + 1,
            draft_tokens=self.speculate,
            cache_type=self.cache_type,
            flash_attention=self.flash_attention,
            mmap=self.mmap,
            extra=self.fake,
        )
