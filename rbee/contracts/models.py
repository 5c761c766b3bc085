"""Model catalog entries, and the progress of downloading and loading a model."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.patterns import MODEL_ID, ORIGIN, SHA256
from rbee.contracts.references import Provider

Capability = Literal["completion", "tools", "thinking", "vision", "embeddings", "rerank"]
"""What a model can do."""


class CatalogEntry(BaseModel):
    """One row of a hive's model catalog; `reference` is the canonical form of the model reference.

    `problem` says what is wrong with the file now (missing, changed); None means it is as recorded. `capabilities` are
    what its header tells that it can do; none where it was cataloged before that was asked.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str
    provider: Provider
    reference: str
    local_path: str
    size_bytes: int = Field(ge=0)
    sha256: str | None = None
    quantization: str | None = None
    architecture: str | None = None
    context_length: int | None = None
    capabilities: list[Capability] = Field(default_factory=list)
    downloaded_at_unix: int
    problem: str | None = None


class ModelDetails(CatalogEntry):
    """A catalog row with the metadata of its GGUF header (`models show`)."""

    vocabulary_size: int | None = None
    end_token: int | None = None
    layers: int | None = None
    embedding_length: int | None = None
    name: str | None = None
    has_chat_template: bool = False


Sha256 = Annotated[str, Field(pattern=SHA256)]
"""A SHA-256, in hexadecimal."""

MAX_FILES: Final = 1000
MAX_NEIGHBOURS: Final = 8

ModelText = Annotated[str, Field(min_length=1, max_length=2048)]
"""The id, reference or alias of a model."""


def model_files_path(model_id: str) -> str:
    """Return the path at which a hive tells which files the model of an id has; below it lies each by its number."""
    return f"/v1/model-files/{model_id}"


class Neighbour(BaseModel):
    """A hive that has a model, for another one that needs it: where it is, and a ticket that opens the model's files.

    `sha256` is that of the first file; `size_bytes` counts all of them.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    node: str = Field(min_length=1, max_length=253)
    url: str = Field(max_length=2048, pattern=ORIGIN)
    model_id: str = Field(max_length=200, pattern=MODEL_ID)
    ticket: str = Field(min_length=1, max_length=512, repr=False)
    sha256: Sha256
    size_bytes: int = Field(ge=0)


class ModelFile(BaseModel):
    """One file of a model, by its path from the root of the repository that it is from."""

    name: str = Field(min_length=1, max_length=1024)
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class ModelFiles(BaseModel):
    """`GET /v1/model-files/{model_id}` of a hive: the files of a model for another hive, the first part first."""

    reference: str
    files: list[ModelFile] = Field(min_length=1, max_length=MAX_FILES)


class DownloadRequest(BaseModel):
    """A request to download a model unless it is there: `POST /v1/models/download`.

    `neighbours` are asked for it, in their order, before its origin is; without `origin` that is not asked at all.
    """

    model_config = ConfigDict(extra="forbid")

    model: ModelText
    neighbours: list[Neighbour] = Field(default_factory=list, max_length=MAX_NEIGHBOURS)
    origin: bool = True


class ModelQuery(BaseModel):
    """`GET /v1/models/show`, `/v1/models/download/progress` and `DELETE /v1/models/download` of a hive: which model."""

    model_config = ConfigDict(extra="forbid")

    model: ModelText


DownloadStage = Literal["queued", "downloading", "retrying", "verifying", "complete"]


class DownloadProgress(BaseModel):
    """One event of the download stream; sizes in bytes, speed in megabits per second.

    Stages: queued, downloading, retrying (with `attempt`, `attempts` and `reason`), verifying, complete (with `entry`:
    the model's catalog row, and whether it was `fetched` just now). `source` is the node that the bytes come from;
    None where it is the model's origin.
    """

    stage: DownloadStage
    bytes_downloaded: int = 0
    bytes_total: int | None = None
    speed_mbps: float = 0.0
    local_path: str | None = None
    model_id: str | None = None
    entry: CatalogEntry | None = None
    fetched: bool = False
    attempt: int | None = None
    attempts: int | None = None
    reason: str | None = None
    remark: str | None = None
    source: str | None = None


class RunningDownload(BaseModel):
    """A download that has not ended, in the list of a hive's models; `reference` is canonical.

    `source` is the node that it comes from; None where that is the model's origin.
    """

    reference: str
    stage: DownloadStage
    bytes_downloaded: int = 0
    bytes_total: int | None = None
    speed_mbps: float = 0.0
    source: str | None = None


class LoadingProgress(BaseModel):
    """One event of the loading stream. `loading_to_ram` on the CPU, `loading_to_vram` on a GPU."""

    stage: Literal["starting", "loading_to_ram", "loading_to_vram", "ready"]
    layers_loaded: int = 0
    layers_total: int = 0
    ram_mb: int | None = None
    vram_mb: int | None = None


class ModelMeta(BaseModel):
    """Sizes of a model as llama-server lists them: tokens of a request, tokens that it was made for, bytes."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None
    size: int | None = None


class ModelStatus(BaseModel):
    """Whether a model is loaded somewhere, as llama-server says it."""

    value: Literal["unloaded", "loading", "loaded"] = "unloaded"


class ModelCard(BaseModel):
    """One model in `GET /v1/models`.

    `context_length` is how many tokens a request may have, with its answer. What is not known yet is None, and has no
    `capabilities`: those of a model that was never loaded here.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "rbee"
    context_length: int | None = None
    meta: ModelMeta = ModelMeta()
    capabilities: list[Capability] = Field(default_factory=list)
    status: ModelStatus = ModelStatus()


class ModelCards(BaseModel):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
