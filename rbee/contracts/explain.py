"""Why a model runs where it does, and what a change of the declared models would do."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import Backend
from rbee.contracts.models import ModelText
from rbee.contracts.served import MAX_SERVED, ServedModel
from rbee.contracts.workers import WorkerState

Verdict = Literal["serves", "loading", "fits", "fits_after_eviction", "waits", "impossible"]


class ExplainQuery(BaseModel):
    """`GET /v2/explain`: a declared name, an alias or a reference."""

    model_config = ConfigDict(extra="forbid")

    model: ModelText


class Evicted(BaseModel):
    """A worker that would end; times in seconds, memory in bytes."""

    worker_id: str
    name: str
    memory_bytes: int
    idle_s: float


class Explanation(BaseModel):
    """What a node, or a device of it, is for a model: it serves it, it could now or later, or it cannot, and why."""

    node: str
    backend: Backend | None = None
    device: int | None = None
    verdict: Verdict
    reason: str
    worker_id: str | None = None
    state: WorkerState | None = None
    need_bytes: int | None = None
    free_bytes: int | None = None
    model_present: bool | None = None
    evict: list[Evicted] = Field(default_factory=list)


class Explanations(BaseModel):
    """The response to `GET /v2/explain`; what a request would do now is `next`, in words."""

    model: str
    reference: str
    next: str
    candidates: list[Explanation]


class PlanRequest(BaseModel):
    """`POST /v2/served/plan`: declarations to add or change, and names to remove; the others stay."""

    model_config = ConfigDict(extra="forbid")

    put: list[ServedModel] = Field(default_factory=list, max_length=MAX_SERVED)
    remove: list[str] = Field(default_factory=list, max_length=MAX_SERVED)


class PlannedStep(BaseModel):
    """One next step: a worker that would be started or ended, or that would get no further requests."""

    action: Literal["start", "end", "retire"]
    model: str
    node: str
    backend: Backend
    device: int
    worker_id: str | None = None
    evict: list[Evicted] = Field(default_factory=list)
    reason: str


class PlannedModel(BaseModel):
    """How a declared model would stand."""

    name: str
    state: str
    reason: str


class ServedPlan(BaseModel):
    """The response to `POST /v2/served/plan`: nothing is done."""

    steps: list[PlannedStep]
    models: list[PlannedModel]
