"""Two turns of a conversation with a tool, streamed, and an object of a schema; prints what was told as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from ollama import Client

SCHEMA = {"type": "object", "properties": {"hives": {"type": "integer"}}, "required": ["hives"]}


def count_bees(hive: str, hours: int) -> int:
    """Count the bees of a hive.

    Args:
        hive: its name
        hours: for how long
    """
    del hive
    return hours * 100


def main() -> None:
    """Talk as Ollama's users do."""
    model = os.environ["MODEL"]
    client = Client(host=os.environ["HOST_URL"], headers={"Authorization": f"Bearer {os.environ['RBEE_KEY']}"})
    names = [each.model for each in client.list().models]
    messages: list[Any] = []
    told = []
    for question in ("How many bees?", None, "And now?"):
        if question is not None:
            messages.append({"role": "user", "content": question})
        thought, text, reason = "", "", None
        calls: list[Any] = []
        for part in client.chat(model=model, messages=messages, tools=[count_bees], think=True, stream=True):
            thought += part.message.thinking or ""
            text += part.message.content or ""
            calls += part.message.tool_calls or []
            reason = part.done_reason or reason
        messages.append({"role": "assistant", "content": text, "thinking": thought, "tool_calls": calls})
        for call in calls:
            outcome = str(count_bees(**call.function.arguments))
            messages.append({"role": "tool", "tool_name": call.function.name, "content": outcome})
        arguments = [dict(call.function.arguments) for call in calls]
        told.append({"thought": thought, "text": text, "calls": arguments, "reason": reason})
    asked = {"role": "user", "content": "How many?"}
    answer = client.chat(model=model, messages=[asked], format=SCHEMA).message.content
    print(json.dumps({"names": names, "turns": told, "object": json.loads(answer or "")}))


if __name__ == "__main__":
    main()
