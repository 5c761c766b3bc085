"""Chat templates: rendered as the model wants it, and never trusted."""

from __future__ import annotations

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.text.template import MAX_TEMPLATE_CHARS, ChatTemplate

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "Hello <b>&"}]


def render(source: str, messages: list[dict[str, str]] = HELLO) -> str:
    return ChatTemplate(source, begin="<s>", end="</s>").render(messages)


def test_messages_become_a_prompt() -> None:
    """The template gets the messages and is asked for the beginning of the answer; nothing is escaped."""
    assert render(CHATML) == "<|im_start|>user\nHello <b>&<|im_end|>\n<|im_start|>assistant\n"


def test_what_templates_expect_is_there() -> None:
    """Names of special tokens, tojson, the date, loop controls and missing variables work."""
    source = (
        "{{ bos_token }}{{ eos_token }}{{ messages[0].content | tojson }}{{ strftime_now('%Y')|length }}"
        "{% for m in messages %}{% break %}{% endfor %}{% if tools %}no{% endif %}"
    )

    assert render(source) == '<s></s>"Hello <b>&"4'


def test_a_template_may_refuse() -> None:
    """What a template raises reaches the user as INVALID_REQUEST, with the way out."""
    with pytest.raises(RbeeError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "raw" in caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_template_cannot_reach_out(source: str) -> None:
    """The template of a downloaded model reaches neither Python nor files, and cannot fill the memory."""
    with pytest.raises(RbeeError) as caught:
        render(source)

    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("source", ["{% for %}", "x" * (MAX_TEMPLATE_CHARS + 1)])
def test_a_broken_template_is_the_models_fault(source: str) -> None:
    """A template that does not compile is MODEL_INVALID."""
    with pytest.raises(RbeeError) as caught:
        render(source)

    assert caught.value.code is ErrorCode.MODEL_INVALID
