"""The requests that OpenAI-compatible clients send to `/v1/responses`; nothing is stored for later requests.

Fields that are not listed here are accepted and ignored.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from rbee.contracts.openai import (
    MAX_MESSAGES,
    MAX_TOOLS,
    Effort,
    ForeignChoice,
    FurtherSampling,
    OpenModel,
    TemplateKwargs,
    Text,
    TokenLimit,
    ToolSelection,
    TopK,
)

UNDERSTOOD: Final = ("message", "function_call", "function_call_output", "reasoning")
"""The types of items that a model understands."""


class InputPart(OpenModel):
    """A content part of a message: text, or a type that is rejected."""

    type: str
    text: Text | None = None
    refusal: Text | None = None


class InputItem(OpenModel):
    """A message, a thought, a tool call that the model made earlier, or its result; other types are left out."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Text | list[InputPart] | None = None
    call_id: str | None = Field(default=None, max_length=256)
    name: str | None = Field(default=None, max_length=256)
    arguments: Text | None = None
    output: Text | list[InputPart] | None = None
    summary: list[InputPart] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: object) -> object:
        """Keep of an item that no model understands what it is, and the id of its call: its fields are its own."""
        if not isinstance(value, dict) or value.get("type", "message") in UNDERSTOOD:
            return value
        return {name: value[name] for name in ("type", "call_id") if name in value}


class ResponseTool(OpenModel):
    """A tool that the model may call; those that are no functions are left out."""

    type: str
    name: str | None = Field(default=None, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedResponseTool(OpenModel):
    """The tool that the model has to call."""

    type: Literal["function"]
    name: str


class AllowedResponseTools(ToolSelection):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]


ResponseToolChoice = Literal["none", "auto", "required"] | NamedResponseTool | AllowedResponseTools | ForeignChoice


class Reasoning(OpenModel):
    """How much the model is to think before it answers."""

    effort: Effort | None = None


class TextFormat(OpenModel):
    """The format that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(OpenModel):
    """Options for the text of the answer."""

    format: TextFormat | None = None


class ResponsesRequest(FurtherSampling):
    """`POST /v1/responses`."""

    model: str | None = Field(default=None, max_length=2048)
    input: Text | list[InputItem]
    instructions: Text | None = None
    stream: bool | None = False
    max_output_tokens: TokenLimit | None = None
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    top_k: TopK | None = None
    text: TextConfig | None = None
    tools: list[ResponseTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    include: list[str] | None = None
    thread: Any = None
    top_logprobs: int | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    metadata: dict[str, str] | None = None

    @field_validator("input")
    @classmethod
    def _check_input(cls, value: str | list[InputItem]) -> str | list[InputItem]:
        if not value:
            raise ValueError("the input is empty")
        if isinstance(value, list) and len(value) > MAX_MESSAGES:
            raise ValueError(f"{len(value)} items exceed the maximum of {MAX_MESSAGES}")
        return value
