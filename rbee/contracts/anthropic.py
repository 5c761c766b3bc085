"""The requests that Anthropic-compatible clients send to `/v1/messages` and `/v1/messages/count_tokens`.

Fields that are not listed here are accepted and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from rbee.contracts.openai import (
    MAX_MESSAGES,
    MAX_TOOLS,
    Effort,
    FurtherSampling,
    OpenModel,
    Text,
    ThinkingBudget,
    TokenLimit,
    TopK,
)
from rbee.contracts.tasks import StopText

UNDERSTOOD: Final = ("text", "thinking", "tool_use", "tool_result")
"""The types of blocks that a model understands."""


class Block(OpenModel):
    """A content block of a message: text, a thought, a tool call, its result, or what is refused or left out."""

    type: str
    text: Text | None = None
    thinking: Text | None = None
    id: str | None = Field(default=None, max_length=256)
    name: str | None = Field(default=None, max_length=256)
    input: dict[str, Any] | None = None
    tool_use_id: str | None = Field(default=None, max_length=256)
    content: Text | list[Block] | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: object) -> object:
        """Keep of a block that no model understands what it is: its fields are its own."""
        if not isinstance(value, dict) or "type" not in value or value["type"] in UNDERSTOOD:
            return value
        return {"type": value["type"]}


class MessageTurn(OpenModel):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Text | list[Block]


class MessageTool(OpenModel):
    """A tool that the model may call; another `type` than custom is a tool of the server's, which has none."""

    type: str | None = None
    name: str = Field(default="", max_length=256)
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class MessageToolChoice(OpenModel):
    """Whether and which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(OpenModel):
    """Whether the model is to think before it answers, and for how many tokens at most."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: ThinkingBudget | None = None


class OutputFormat(OpenModel):
    """The format that the answer must have."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(OpenModel):
    """Options for the answer."""

    format: OutputFormat | None = None
    effort: Effort | None = None


class CountTokensRequest(OpenModel):
    """`POST /v1/messages/count_tokens`."""

    model: str | None = Field(default=None, max_length=2048)
    messages: list[MessageTurn] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: Text | list[Block] | None = None
    tools: list[MessageTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: MessageToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    context_management: Any = None
    mcp_servers: Any = None
    container: Any = None
    thread: Any = None


class MessagesRequest(CountTokensRequest, FurtherSampling):
    """`POST /v1/messages`; a temperature may be higher than Anthropic's models take it."""

    max_tokens: TokenLimit
    stream: bool | None = False
    stop_sequences: Annotated[list[StopText], Field(max_length=16)] | None = None
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, ge=0.0, le=1.0)
    top_k: TopK | None = None


class TokenCount(BaseModel):
    """How many tokens a request would take."""

    input_tokens: int
