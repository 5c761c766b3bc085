"""Grammars that nobody asked for are bounded; what they let through is judged by llguidance in `tests/engine`."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.worker.compat.tool_call_grammar import MAX_FREE_CHARS, free_grammar
from rbee.worker.compat.tools import FORMS, ToolCallFormat


def tools(count: int, properties: int) -> list[dict[str, Any]]:
    schema = {
        "type": "object",
        "properties": {f"property_{number}": {"type": "string"} for number in range(properties)},
    }
    return [{"function": {"name": f"tool_number_{number}", "parameters": schema}} for number in range(count)]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.sign)
def test_a_grammar_that_would_be_too_large_is_none(form: ToolCallFormat) -> None:
    """Many tools have a grammar; more than can be compiled for each request have none, and nothing is refused."""
    some = free_grammar(form, tools(40, 10), parallel=True, special_token=lambda _: None)

    assert some is not None
    assert some.size <= MAX_FREE_CHARS
    assert free_grammar(form, tools(128, 400), parallel=True, special_token=lambda _: None) is None
