"""A conversation as a chat template takes it, in one form for all interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TemplateMessage = Mapping[str, Any]
"""One message: `role`, `content` (text), and what else a template reads: `reasoning_content`, `tool_calls`, ..."""
Tool = Mapping[str, Any]
"""A tool as OpenAI's chats offer it: `type` and `function`, with `name`, `description` and `parameters`."""
ToolChoice = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a chat and how its answer may be.

    Args:
        parallel: several calls in one answer are allowed.
        thinking: whether the model is to think before it answers; None as its template has it.
        template_kwargs: further variables of the template.
        new_turn: begin a turn of the assistant even where the last message is its own, which is else continued.
    """

    messages: tuple[TemplateMessage, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel: bool = True
    thinking: bool | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    new_turn: bool = False

    @property
    def continues(self) -> bool:
        """Return whether the answer goes on with the last message, which the assistant has begun."""
        if self.new_turn or len(self.messages) < 2:  # templates do not render a conversation of no messages
            return False
        last = self.messages[-1]
        begun = last.get("content") or last.get("reasoning_content")
        return last["role"] == "assistant" and bool(begun) and not last.get("tool_calls")

    @property
    def options(self) -> dict[str, Any]:
        """Return what the form of an answer depends on beside tools, as `rendering` takes it."""
        return {
            "parallel_tool_calls": self.parallel,
            "enable_thinking": self.thinking is not False,
            "template_kwargs": dict(self.template_kwargs),
        }
