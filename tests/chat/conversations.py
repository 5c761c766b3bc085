"""Six conversations that every template must take, with the texts that may not be lost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from rbee.worker.chat.rendering import Chat

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


def lost_texts(source: str, conversation: Conversation) -> list[str]:
    """Return the texts that a template loses or puts out of order; those of system turns may be anywhere."""
    chat = _opened(source)
    prompt = chat.render({"messages": conversation.messages, "tools": conversation.offered})["prompt"]
    lost = [text for text in conversation.tools if text not in prompt]
    at = 0
    for message in conversation.messages:
        text, is_system = message["content"], message["role"] == "system"
        found = prompt.find(text, 0 if is_system else at)
        if found < 0:
            lost.append(text)
        elif not is_system:
            at = found
    return lost


@lru_cache(maxsize=4)
def _opened(source: str) -> Chat:
    return Chat(source, begin="<s>", end="</s>")
