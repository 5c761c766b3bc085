"""What clients send back of earlier turns, as templates take it."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.worker.compat.chat_messages import parse_arguments


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"city": "Paris", "days": [1, 2]}', {"city": "Paris", "days": [1, 2]}),
        ('{"city": "Par', {"city": "Par"}),
        ('{"city"', {}),
        ('{"days": [1, {"of": tr', {"days": [1, {}]}),
        ('{"city": "Par\\', {"city": "Par"}),
        ('{"city": "\\ud83d', {"city": "\ufffd"}),
        ("", {}),
        ("null", {}),
        ("get_weather(", {"arguments": "get_weather("}),
        ("[1]", {"arguments": [1]}),
    ],
)
def test_arguments_are_an_object_however_they_ended(text: str, arguments: dict[str, Any]) -> None:
    """A call that was cut off is what came of it, so that its conversation goes on; nothing that came is lost."""
    assert parse_arguments(text) == arguments
