"""Inference over rbee's own interface: the request, and the events of its stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rbee.contracts.devices import Backend
from rbee.contracts.patterns import IDENTIFIER
from rbee.contracts.workers import ModelText

MAX_PROMPT_CHARS = 2_000_000
MAX_BODY_BYTES = 4 * 1024 * 1024

Priority = Annotated[int, Field(ge=-10, le=10)]
Deadline = Annotated[float, Field(gt=0, le=86_400)]
ReasoningEffort = Literal["low", "medium", "high"]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class Sampling(BaseModel):
    """The sampling parameters; the defaults are the keeper's. A seed of None means a random one.

    The repeat penalty is on by default because small models repeat themselves without one.
    """

    model_config = ConfigDict(extra="forbid")

    max_tokens: int = Field(
        default=20, ge=1, le=1_000_000, description="most tokens of the answer, which the context bounds as well"
    )
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    top_k: int = Field(default=40, ge=0, le=100_000)
    top_p: float = Field(default=0.95, ge=0.0, le=1.0)
    min_p: float = Field(default=0.05, ge=0.0, le=1.0)
    repeat_penalty: float = Field(default=1.1, gt=0.0, le=10.0)
    presence_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(default=0.0, ge=-2.0, le=2.0)
    seed: int | None = Field(default=None, ge=0, le=2**32 - 2)
    stop: list[StopText] = Field(default_factory=list, max_length=16)


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=MAX_PROMPT_CHARS)


class InferenceRequest(Sampling):
    """`POST /v1/inference` of a worker: either a `prompt` or `messages`.

    `raw` uses the prompt as it is; otherwise the model's chat template is applied, which `enable_thinking` and
    `reasoning_effort` tell whether, and how much, the model is to think before it answers.
    """

    request_id: str | None = Field(default=None, pattern=IDENTIFIER)
    prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    system: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=10_000)
    raw: bool = False
    enable_thinking: bool | None = None
    reasoning_effort: ReasoningEffort | None = None

    @model_validator(mode="after")
    def _check_input(self) -> InferenceRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either prompt or messages is required, not both")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("the prompt is empty")
        return self


class TaskRequest(InferenceRequest):
    """`POST /v2/tasks` of the queen: an inference, and constraints on where it runs.

    `model` is a model reference (aliases are resolved by the process that holds the config: keeper or queen). Of the
    requests that wait for a slot, the one with the highest `priority` comes first. `deadline_s` is how long, in
    seconds from its arrival, the request may wait for a slot.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: ModelText
    node: str | None = Field(default=None, max_length=253)
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    priority: Priority = 0
    deadline_s: Deadline | None = None

    def inference(self) -> dict[str, Any]:
        """Return the body of the worker's request, as JSON-ready values."""
        ours = {"model", "node", "backend", "device", "priority", "deadline_s"}
        return self.model_dump(mode="json", exclude=ours, exclude_none=True)


FinishReason = Literal["stop", "length", "cancelled"]


class DoneEvent(BaseModel):
    """The end of a successful stream, with token counts; times are in milliseconds.

    `device_ms` is the time for which the engine computed for it: that of each batch, shared by the rows that each
    request had in it.
    `drafted_tokens` were speculated, of which `accepted_tokens` were right; both are absent without speculation.
    """

    done: Literal[True] = True
    total_tokens: int
    duration_ms: int
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    device_ms: float = 0.0
    seed: int | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None


class Narration(BaseModel):
    """One line of progress for a person: `event: narration`."""

    actor: str
    action: str
    human: str
    emoji: str = ""


class Fallback(Narration):
    """The narration of a task whose model cannot be served now: `model` is used instead, the name of another one."""

    model: str


class TaskAccepted(BaseModel):
    """The first event of a task's stream (`event: task`): the id for canceling it."""

    task_id: str


class TaskPlaced(BaseModel):
    """The placement of a task (`event: placed`); `warm` means that no worker had to be started."""

    task_id: str
    node: str
    worker_id: str
    backend: Backend
    device: int
    warm: bool
