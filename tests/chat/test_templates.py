"""Each template that llama.cpp ships takes each of the six conversations, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import RbeeError
from rbee.worker.chat import library
from rbee.worker.chat.rendering import Chat
from rbee.worker.engine import llama_library
from tests.chat.conversations import CONVERSATIONS, Conversation

pytestmark = pytest.mark.engine


def templates() -> list[Path]:
    """Return the templates, which the build of the llama.cpp wheel puts into it."""
    package = library.folder()
    return [] if package is None else sorted(package.glob("chat_templates/*.jinja"))


def test_there_are_templates() -> None:
    """The wheel of llama.cpp has the library, and the templates of seventy models, also where an engine runs."""
    llama_library.functions()
    assert library.is_there()
    assert len(templates()) >= 70


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize("path", templates(), ids=lambda path: path.stem)
def test_a_template_takes_a_conversation(path: Path, conversation: Conversation) -> None:
    """All texts are in the prompt, those of user, assistant and tools in their order (some move what a system says)."""
    try:
        applied = Chat(path.read_text(encoding="utf-8"), begin="<s>", end="</s>").render(
            {"messages": conversation.messages, "tools": conversation.offered}
        )
    except RbeeError as error:
        pytest.fail(error.message)
    prompt, at = applied["prompt"], 0
    for message in conversation.messages:
        start = 0 if message["role"] == "system" else at
        assert message["content"] in prompt[start:], f"{message['content']!r} is lost or out of order in:\n{prompt}"
        at = at if message["role"] == "system" else prompt.index(message["content"], at)
    for text in conversation.tools:
        assert text in prompt
