"""Each template that llama.cpp ships takes each of the six conversations, and loses nothing."""

from __future__ import annotations

import pytest

from rbee.worker.chat import library
from rbee.worker.engine import llama_library
from tests.chat.answers import TEMPLATES
from tests.chat.conversations import CONVERSATIONS, Conversation, lost_texts

pytestmark = pytest.mark.engine


def test_there_are_templates() -> None:
    """The wheel of llama.cpp has the library, and the templates of seventy models, also where an engine runs."""
    llama_library.functions()
    assert library.is_there()
    assert len(TEMPLATES.paths()) >= 70


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize("model", [path.stem for path in TEMPLATES.paths()])
def test_a_template_takes_a_conversation(model: str, conversation: Conversation) -> None:
    """All texts are in the prompt, those of user, assistant and tools in their order (some move what a system says)."""
    assert lost_texts(TEMPLATES.source(model), conversation) == []
