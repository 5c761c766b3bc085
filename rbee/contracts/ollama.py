"""The requests of Ollama's clients, to `/api/chat`, `/api/generate`, `/api/embed` and their like.

Fields that are not listed here are accepted and ignored. An answer is a stream unless `stream` is false.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from rbee.contracts.openai import MAX_INPUTS, MAX_MESSAGES, MAX_TOOLS, Function, OpenModel, Text, TopK
from rbee.contracts.tasks import StopText
from rbee.contracts.workers import MAX_MODEL_CHARS

VERSION: Final = "0.33.0"
"""The version of Ollama whose interface this is: clients refuse one that is too old for what they use."""

ModelName = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)]
Images = Annotated[list[str], Field(max_length=256)]
"""Images in base64."""
KeepAlive = float | str
"""How long a model is to stay loaded: seconds, or a duration such as `5m`; negative for ever."""
Think = bool | Literal["low", "medium", "high", "max"]
"""Whether a model thinks before it answers, or how much."""


class Options(OpenModel):
    """The options of a request; those that are not listed are named in the answer's header X-Rbee-Ignored."""

    model_config = ConfigDict(extra="allow")

    num_predict: int | None = Field(default=None, ge=-2, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_k: TopK | None = None
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    repeat_penalty: float | None = Field(default=None, gt=0.0, le=10.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[StopText], Field(max_length=16)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _wrap_single_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class ModelRequest(OpenModel):
    """What all requests to a model have in common."""

    model: ModelName | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class TextRequest(ModelRequest):
    """What requests for text have in common; `format` is "json" or a JSON schema."""

    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncate: bool | None = None
    shift: bool | None = None


class OllamaFunctionCall(OpenModel):
    """The name of a tool and its arguments, as an object."""

    name: str = Field(max_length=256)
    arguments: dict[str, Any] = Field(default_factory=dict)


class OllamaToolCall(OpenModel):
    """A tool call that the model made earlier in the conversation."""

    id: str | None = Field(default=None, max_length=256)
    function: OllamaFunctionCall


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class OllamaMessage(OpenModel):
    """One message of a conversation."""

    role: Annotated[Literal["system", "user", "assistant", "tool"], BeforeValidator(_lowered)]
    content: Text | None = None
    thinking: Text | None = None
    images: Images | None = None
    tool_calls: list[OllamaToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_name: str | None = Field(default=None, max_length=256)
    tool_call_id: str | None = Field(default=None, max_length=256)


class OllamaTool(OpenModel):
    """A tool that the model may call."""

    type: str = "function"
    function: Function


class OllamaChatRequest(TextRequest):
    """`POST /api/chat`; without messages, the model is only loaded."""

    messages: list[OllamaMessage] | None = Field(default=None, max_length=MAX_MESSAGES)
    tools: list[OllamaTool] | None = Field(default=None, max_length=MAX_TOOLS)


class GenerateRequest(TextRequest):
    """`POST /api/generate`: a prompt for the chat template, or with `raw` for the model as it is.

    Without a prompt the model is only loaded.
    """

    prompt: Text | None = None
    suffix: Text | None = None
    system: Text | None = None
    template: Text | None = None
    raw: bool | None = None
    images: Images | None = None
    context: Annotated[list[int], Field(max_length=1_000_000)] | None = None


class EmbedRequest(ModelRequest):
    """`POST /api/embed`: one text or several."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
    dimensions: int | None = Field(default=None, ge=0)
    truncate: bool | None = None


class PromptEmbedRequest(ModelRequest):
    """`POST /api/embeddings`: one text; what `/api/embed` has replaced."""

    prompt: Text


class NamedModelRequest(OpenModel):
    """`POST /api/show` and `/api/pull`, `DELETE /api/delete`: a model, which old clients call `name`."""

    model: ModelName | None = None
    name: ModelName | None = None
    stream: bool | None = None

    @property
    def wanted(self) -> str | None:
        """Return the name of the model."""
        return self.model or self.name


class OllamaVersion(BaseModel):
    """`GET /api/version`."""

    version: str = VERSION
    rbee_version: str


class OllamaDetails(BaseModel):
    """What sort of model one is; empty where it is not known."""

    model_config = ConfigDict(protected_namespaces=())

    parent_model: str = ""
    format: str = "gguf"
    family: str = ""
    families: list[str] = Field(default_factory=list)
    parameter_size: str = ""
    quantization_level: str = ""


class TaggedModel(BaseModel):
    """One model in `GET /api/tags`: by two fields of the same name, its size in bytes."""

    name: str
    model: str
    modified_at: str
    size: int = 0
    digest: str = ""
    details: OllamaDetails
    capabilities: list[str] = Field(default_factory=list)


class TaggedModels(BaseModel):
    """`GET /api/tags`."""

    models: list[TaggedModel]


class RunningModel(BaseModel):
    """One model in `GET /api/ps`: when it ends if nobody uses it, and its bytes on a GPU."""

    name: str
    model: str
    size: int = 0
    digest: str = ""
    details: OllamaDetails
    expires_at: str
    size_vram: int = 0
    context_length: int = 0


class RunningModels(BaseModel):
    """`GET /api/ps`."""

    models: list[RunningModel]


class ShownModel(BaseModel):
    """`POST /api/show`; `model_info` has the names of a GGUF file's header."""

    model_config = ConfigDict(protected_namespaces=())

    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    details: OllamaDetails
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


class PullStatus(BaseModel):
    """One line of the answer to `POST /api/pull`, sizes in bytes."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class OllamaError(BaseModel):
    """The body of an error on these routes: what other routes have in an object lies beside the message."""

    error: str
    code: str
    type: str
    param: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    hint: str = ""
    request_id: str | None = None


def timestamp(unix: float) -> str:
    """Return seconds since the epoch as Ollama writes a time."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
