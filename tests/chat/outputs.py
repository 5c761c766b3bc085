"""What models of ten forms write when they call a tool: whole, and in a way that is no call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Output:
    """An output of the model of a template; `thought` and `content` are what is in it beside the call.

    `malformed` is what no parser can take for a call; `rest` is what it says after its thought, else all of it.
    """

    template: str
    text: str
    malformed: str
    thought: str = ""
    content: str = ""
    rest: str = ""


def _with_wide_bars(text: str) -> str:
    """Return *text* with the bars that DeepSeek's marks have."""
    return text.replace("|", "\uff5c")


OUTPUTS: Final = (
    Output(
        "Qwen-Qwen3-0.6B",
        "<think>\nLet me count.\n</think>\n\nI will look.\n<tool_call>\n"
        '{"name": "count_bees", "arguments": {"hive": "north", "hours": 3}}\n</tool_call>',
        '<think>\nx\n</think>\n\n<tool_call>\n{"name": "count_bees", "arguments": {"hive": north}}\n</tool_call> bye',
        thought="Let me count.",
        content="I will look.",
        rest='<tool_call>\n{"name": "count_bees", "arguments": {"hive": north}}\n</tool_call> bye',
    ),
    Output(
        "deepseek-ai-DeepSeek-V3.1",
        _with_wide_bars(
            "Let me count.</think>I will look.<|tool▁calls▁begin|><|tool▁call▁begin|>count_bees<|tool▁sep|>"
            '{"hive": "north", "hours": 3}<|tool▁call▁end|><|tool▁calls▁end|>'
        ),
        _with_wide_bars("x</think><|tool▁calls▁begin|>nonsense<|tool▁calls▁end|> bye"),
        thought="Let me count.",
        content="I will look.",
        rest=_with_wide_bars("<|tool▁calls▁begin|>nonsense<|tool▁calls▁end|> bye"),
    ),
    Output(
        "openai-gpt-oss-120b",
        "<|channel|>analysis<|message|>Let me count.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.count_bees <|constrain|>json<|message|>{"hive": "north", "hours": 3}',
        "<|channel|>commentary to=functions.count_bees <|constrain|>json<|message|>{hive}<|end|> bye",
        thought="Let me count.",
    ),
    Output(
        "Qwen3-Coder",
        "I will look.\n<tool_call>\n<function=count_bees>\n<parameter=hive>\nnorth\n</parameter>\n"
        "<parameter=hours>\n3\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=unknown>\n<parameter=hive>\nnorth\n</tool_call>",
        content="I will look.",
    ),
    Output(
        "mistralai-Mistral-Nemo-Instruct-2407",
        '[TOOL_CALLS][{"name": "count_bees", "arguments": {"hive": "north", "hours": 3}, "id": "abcdefghi"}]',
        '[TOOL_CALLS]{"name": 3}',
    ),
    Output(
        "moonshotai-Kimi-K2",
        "I will look.<|tool_calls_section_begin|><|tool_call_begin|>functions.count_bees:0"
        '<|tool_call_argument_begin|>{"hive": "north", "hours": 3}<|tool_call_end|><|tool_calls_section_end|>',
        "<|tool_calls_section_begin|>garbage",
        content="I will look.",
    ),
    Output(
        "meta-llama-Llama-3.1-8B-Instruct",
        '{"name": "count_bees", "parameters": {"hive": "north", "hours": 3}}',
        '{"name": "count_bees", "parameters": oops}',
    ),
    Output(
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        '<tool_call>\n{"name": "count_bees", "arguments": {"hive": "north", "hours": 3}}\n</tool_call>',
        "<tool_call>\nnot json\n</tool_call>",
    ),
    Output(
        "google-gemma-4-31B-it",
        "<|channel>thought\nLet me count.<channel|>"
        '<|tool_call>call:count_bees{hive:<|"|>north<|"|>,hours:3}<tool_call|>',
        "<|tool_call>nocall<tool_call|>",
        thought="Let me count.",
    ),
    Output(
        "GLM-4.6",
        "\n<think>Let me count.</think>\nI will look.\n<tool_call>count_bees\n<arg_key>hive</arg_key>\n"
        "<arg_value>north</arg_value>\n<arg_key>hours</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "\n<think></think>\n<tool_call>count_bees\n<arg_value>north</tool_call>",
        thought="Let me count.",
        content="I will look.",
    ),
    # Of models whose templates have no form of calls: they are told the generic one.
    Output(
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "Let me count.\n</think>\n\nI will look.\n<tool_call>\n"
        '{"name": "count_bees", "arguments": {"hive": "north", "hours": 3}}\n</tool_call>',
        'x\n</think>\n\n<tool_call>\n{"name": "count_bees", "arguments": {"hive": north}}\n</tool_call> bye',
        thought="Let me count.",
        content="I will look.",
        rest='<tool_call>\n{"name": "count_bees", "arguments": {"hive": north}}\n</tool_call> bye',
    ),
    Output(
        "google-gemma-2-2b-it",
        '<tool_call>\n{"name": "count_bees", "arguments": {"hive": "north", "hours": 3}}\n</tool_call>',
        "<tool_call>\nnot json\n</tool_call>",
    ),
)
