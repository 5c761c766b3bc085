"""Two turns of a conversation with a tool, streamed, and an object of a schema; prints what was told as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any, Literal

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


class Hives(BaseModel):
    """How many there are."""

    hives: int = Field(ge=1)


@function_tool  # type: ignore[untyped-decorator]
def count_bees(hive: Literal["north", "south"], hours: int) -> str:
    """Count the bees of a hive."""
    del hive
    return str(hours * 100)


async def main(interface: str) -> None:
    """Talk over this interface."""
    set_tracing_disabled(disabled=True)
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["RBEE_KEY"], max_retries=0)
    model = MODELS[interface](model=os.environ["MODEL"], openai_client=client)
    other = Agent(name="drone", instructions="You rest.", model=model)
    keeper = Agent(name="keeper", instructions="You count.", model=model, tools=[count_bees], handoffs=[other])
    history: list[Any] = []
    turns = []
    for question in ("How many bees?", "And now?"):
        result = Runner.run_streamed(keeper, [*history, {"role": "user", "content": question}])
        kinds: Counter[str] = Counter()
        async for event in result.stream_events():
            kinds[event.data.type if event.type == "raw_response_event" else event.type] += 1
        history = result.to_input_list()
        outputs = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
        turns.append({"text": result.final_output, "kinds": kinds, "results": outputs})
    counter = Agent(name="counter", instructions="Answer.", model=model, output_type=Hives)
    answer = (await Runner.run(counter, "How many?")).final_output
    print(json.dumps({"turns": turns, "object": answer.model_dump()}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
