"""The requests that OpenAI-compatible clients send to `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

Fields that are not listed here are accepted and ignored, as these clients expect of any server. Listed fields mean
what they mean at OpenAI; `top_k`, `min_p`, `repeat_penalty`, `grammar` (GBNF) and `continue_final_message` are common
additions of other servers, as are `reasoning_content`, `chat_template_kwargs` and `thinking_budget_tokens`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rbee.contracts.patterns import IDENTIFIER
from rbee.contracts.tasks import MAX_PROMPT_CHARS, StopText

MAX_CHOICES = 16  # each choice takes a slot of its own, and few workers have more
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_INPUTS = 2048
MAX_COMPLETIONS = 256  # of one request to complete several prompts, which wait for slots in turn
MAX_GRAMMAR_CHARS = 100_000

Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]
TokenLimit = Annotated[int, Field(ge=-1, le=10_000_000)]
"""The most tokens of an answer: -1 for no limit, 0 to evaluate the prompt only."""
TopK = Annotated[int, Field(ge=-1, le=100_000)]
"""How many of the likeliest tokens to sample from: 0 or -1 for all of them."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is to think before it answers."""
ThinkingBudget = Annotated[int, Field(ge=0, le=10_000_000)]
"""The most tokens of a thought."""
TemplateKwargs = Annotated[dict[str, Any], Field(max_length=64)]
"""Variables for the model's chat template."""


class OpenModel(BaseModel):
    """A model that ignores unknown fields."""

    # A validator is built for its first request: a worker starts a tenth of a second sooner without all of them.
    model_config = ConfigDict(extra="ignore", protected_namespaces=(), defer_build=True)


class ContentPart(OpenModel):
    """A content part of a message: text, a thought, or a type that is rejected."""

    type: str
    text: Text | None = None
    refusal: Text | None = None
    thinking: Text | None = None


class FunctionCall(OpenModel):
    """The name of a tool and its arguments, as JSON in a string; some clients send the object."""

    name: str = Field(max_length=256)
    arguments: Text | dict[str, Any] | None = "{}"


class ToolCall(OpenModel):
    """A tool call that the model made earlier in the conversation; one of no function is left out."""

    id: str | None = Field(default=None, max_length=256)
    type: str = "function"
    function: FunctionCall | None = None


class ChatMessage(OpenModel):
    """One message of a conversation.

    `reasoning` is what some servers call `reasoning_content`, `function_call` what `tool_calls` has replaced.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[ContentPart] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    name: str | None = Field(default=None, max_length=256)
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    function_call: FunctionCall | None = None
    tool_call_id: str | None = Field(default=None, max_length=256)


class Function(OpenModel):
    """A tool that the model may call; `parameters` is a JSON schema."""

    name: str = Field(pattern=IDENTIFIER)
    description: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(OpenModel):
    """A tool; those that are no functions are left out."""

    type: str
    function: Function | None = None

    @model_validator(mode="after")
    def _check_function(self) -> Tool:
        if self.type == "function" and self.function is None:
            raise ValueError("a tool of type function requires function")
        return self


class NamedTool(OpenModel):
    """The tool that the model has to call."""

    type: Literal["function"]
    function: NamedFunction


class NamedFunction(OpenModel):
    """The name of a function."""

    name: str


class AllowedTool(OpenModel):
    """A tool that the model may call: `function.name`, or `name` in responses."""

    type: str
    function: NamedFunction | None = None
    name: str | None = None


class ToolSelection(OpenModel):
    """The tools that the model may call, or of which it has to call one."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[AllowedTool] = Field(max_length=MAX_TOOLS)


class AllowedTools(OpenModel):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: ToolSelection


class ForeignChoice(OpenModel):
    """A choice of something that is no function, which is refused."""

    type: str


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools | ForeignChoice


class JsonSchema(OpenModel):
    """A schema that the answer must match; with `strict`, a schema that cannot be enforced fully is rejected."""

    name: str = "answer"
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(OpenModel):
    """The format that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("a response_format of type json_schema requires json_schema")
        return self


class StreamOptions(OpenModel):
    """Options of a streamed answer."""

    include_usage: bool | None = None


class FurtherSampling(OpenModel):
    """Parameters of sampling that not every interface has of its own; None means the server's default."""

    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    repeat_penalty: float | None = Field(default=None, gt=0.0, le=10.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)


class BaseGenerationRequest(FurtherSampling):
    """The fields that all requests for text have in common; None means the server's default."""

    model: str | None = Field(default=None, max_length=2048)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    top_k: TopK | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[StopText], Field(max_length=16)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    grammar: str | None = Field(default=None, max_length=MAX_GRAMMAR_CHARS)

    @field_validator("stop", mode="before")
    @classmethod
    def _wrap_single_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("logit_bias")
    @classmethod
    def _check_token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token in value or ():
            if not (token.isascii() and token.isdigit() and len(token) <= 10):
                raise ValueError(f"'{token[:40]}' is not a token id; the keys are token ids, as decimal numbers")
        return value


class ChatRequest(BaseGenerationRequest):
    """`POST /v1/chat/completions`.

    `json_schema` is what llama-server takes beside `response_format`; a budget of -1 is none. `functions` is refused.
    """

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    reasoning_effort: Effort | None = None
    thinking_budget_tokens: Annotated[int, Field(ge=-1, le=10_000_000)] | None = None
    json_schema: dict[str, Any] | None = None
    functions: Any = None
    chat_template_kwargs: TemplateKwargs | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs to be true")
        return self


class CompletionRequest(BaseGenerationRequest):
    """`POST /v1/completions`: a prompt as text or token ids, or several of them."""

    prompt: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_COMPLETIONS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_COMPLETIONS)]
    )
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES)


class EmbeddingRequest(OpenModel):
    """`POST /v1/embeddings`: one text or several, or their token ids."""

    model: str | None = Field(default=None, max_length=2048)
    input: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)


NamedTool.model_rebuild()
AllowedTool.model_rebuild()
