"""What OpenAI's clients send to `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

Fields that are not listed here are accepted and do nothing, as these clients expect of any server. What is listed
means what it means there; `top_k`, `min_p`, `repeat_penalty` and `grammar` (GBNF) are additions that others know too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rbee.contracts.tasks import MAX_PROMPT_CHARS, StopText

MAX_CHOICES = 16  # each answer takes a slot of its own, and few workers have more
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_INPUTS = 2048
MAX_GRAMMAR_CHARS = 100_000

Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class OpenModel(BaseModel):
    """A part of a request that may have fields nobody here knows."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class ContentPart(OpenModel):
    """A piece of a message: text, or something that is refused."""

    type: str
    text: Text | None = None
    refusal: Text | None = None


class FunctionCall(OpenModel):
    """The name of a tool and what it is called with, as JSON in a string."""

    name: str = Field(max_length=256)
    arguments: Text = "{}"


class ToolCall(OpenModel):
    """A call that the model made earlier in the conversation."""

    id: str = Field(default="", max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(OpenModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[ContentPart] | None = None
    name: str | None = Field(default=None, max_length=256)
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(default=None, max_length=256)


class Function(OpenModel):
    """A tool that the model may call; `parameters` is a JSON schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(OpenModel):
    """A tool of the only kind there is here."""

    type: Literal["function"]
    function: Function


class NamedTool(OpenModel):
    """A wish for one certain tool."""

    type: Literal["function"]
    function: NamedFunction


class NamedFunction(OpenModel):
    """The name of a tool."""

    name: str


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class JsonSchema(OpenModel):
    """A schema that the answer must fit; with `strict`, a schema that cannot be held whole is refused."""

    name: str = "answer"
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(OpenModel):
    """What form the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("a response_format of type json_schema needs json_schema")
        return self


class StreamOptions(OpenModel):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


class BaseGenerationRequest(OpenModel):
    """What all requests for text have in common; None means the server's own default."""

    model: str | None = Field(default=None, max_length=2048)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=0, le=100_000)
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    repeat_penalty: float | None = Field(default=None, gt=0.0, le=10.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[StopText], Field(max_length=16)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    grammar: str | None = Field(default=None, max_length=MAX_GRAMMAR_CHARS)

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("logit_bias")
    @classmethod
    def _of_tokens(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token in value or ():
            if not (token.isascii() and token.isdigit() and len(token) <= 10):
                raise ValueError(f"'{token[:40]}' is no token; its keys are ids of tokens, as numbers")
        return value


class ChatRequest(BaseGenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _sensible(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self


class CompletionRequest(BaseGenerationRequest):
    """`POST /v1/completions`: a prompt as text or tokens, or several of them."""

    prompt: (
        Text
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1)]
        | (Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)])
    )
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES)


class EmbeddingRequest(OpenModel):
    """`POST /v1/embeddings`: one text or several, or their tokens."""

    model: str | None = Field(default=None, max_length=2048)
    input: (
        Text
        | Annotated[list[TokenId], Field(min_length=1)]
        | (Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)])
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)


NamedTool.model_rebuild()
