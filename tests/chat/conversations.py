"""Six conversations that every template must take, with the texts that may not be lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

CALL_ID: Final = "call_8f2c91d04be7435ea6d0c1b2"
FUNCTION: Final[dict[str, Any]] = {
    "name": "count_bees",
    "description": "Counts the bees of a hive.",
    "parameters": {
        "type": "object",
        "properties": {"hive": {"type": "string", "description": "Which hive."}, "hours": {"type": "integer"}},
        "required": ["hive"],
    },
}
TOOL: Final = {"type": "function", "function": FUNCTION}


@dataclass(frozen=True)
class Conversation:
    """A request as the template takes it; `tools` are texts of tools and calls that its prompt must hold too."""

    name: str
    messages: list[dict[str, Any]]
    offered: list[dict[str, Any]]
    tools: list[str]


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    """Return a message."""
    return {"role": role, "content": content, **more}


def _conversation(name: str, messages: list[dict[str, Any]], **more: list[Any]) -> Conversation:
    return Conversation(name, messages, more.get("offered", []), more.get("tools", []))


_CALL: Final = {
    "id": CALL_ID,
    "type": "function",
    "function": {"name": "count_bees", "arguments": '{"hive": "north", "hours": 3}'},
}

CONVERSATIONS: Final = (
    _conversation(
        "plain",
        [
            turn("system", "You keep bees."),
            turn("user", "Which bee is largest?"),
            turn("assistant", "The carpenter bee."),
            turn("user", "And the smallest?"),
        ],
    ),
    _conversation(
        "tools",
        [turn("system", "You keep bees."), turn("user", "How many bees are in the north hive?")],
        offered=[TOOL],
        tools=["count_bees"],
    ),
    _conversation(
        "round trip",
        [
            turn("user", "How many bees are in the north hive?"),
            turn("assistant", "", tool_calls=[_CALL]),
            turn("tool", "Forty thousand.", tool_call_id=CALL_ID, name="count_bees"),
            turn("assistant", "There are forty thousand bees."),
            turn("user", "And in the south hive?"),
        ],
        offered=[TOOL],
        tools=["count_bees", "north"],
    ),
    _conversation(
        "two systems",
        [
            turn("system", "You keep bees."),
            turn("system", "Answer briefly."),
            turn("user", "Which is largest?"),
        ],
    ),
    _conversation(
        "later system",
        [
            turn("system", "You keep bees."),
            turn("user", "Which bee is largest?"),
            turn("assistant", "The carpenter bee."),
            turn("system", "From now on answer in Latin."),
            turn("user", "And the smallest?"),
        ],
    ),
    _conversation(
        "thoughts",
        [
            turn("user", "Which bee is largest?"),
            turn("assistant", "The carpenter bee.", reasoning_content="Carpenter bees reach 25 mm."),
            turn("user", "And the smallest?"),
        ],
    ),
)
