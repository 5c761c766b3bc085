"""What a loaded model can do, by its file and its chat template. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rbee.contracts.models import Capability
from rbee.worker.engine.protocol import ModelFacts

_TOOLS: Final = ("supports_tools", "supports_tool_calls")


def capabilities_of(facts: ModelFacts, description: Mapping[str, Any]) -> tuple[Capability, ...]:
    """Return what a model can do, given what its template can do (`PromptTokenizer.description`).

    A model whose template knows no tools may be offered some, but was not made for them.
    """
    if facts.ranks:
        return ("rerank",)
    if facts.embedding:
        return ("embeddings",)
    known = description.get("capabilities", {})
    tools: tuple[Capability, ...] = ("tools",) if any(known.get(name) for name in _TOOLS) else ()
    thinking: tuple[Capability, ...] = ("thinking",) if description.get("thinking") else ()
    return ("completion", *tools, *thinking)
