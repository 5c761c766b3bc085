"""A conversation: what the model is asked, and what `/` commands change."""

from __future__ import annotations

import pytest

from rbee.keeper.conversation import HELP, CommandError, Conversation, summary


def talk() -> Conversation:
    found = Conversation("chat", system="Be short.")
    for question, answer in (("a", "A"), ("b", "B")):
        found.ask(question)
        found.answered(answer)
    return found


def test_a_question_is_asked_with_all_that_was_said() -> None:
    """The system prompt comes first, and settings are those that were given."""
    found = talk()
    found.options["seed"] = 7
    found.ask("c")
    body = found.body()
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        ("system", "Be short."),
        ("user", "a"),
        ("assistant", "A"),
        ("user", "b"),
        ("assistant", "B"),
        ("user", "c"),
    ]
    assert (body["model"], body["seed"], body["stream"]) == ("chat", 7, True)
    assert "temperature" not in body


def test_a_question_without_an_answer_is_asked_again_or_replaced() -> None:
    """It stays for a retry, and another question does not follow it: models know no two turns of one side."""
    found = talk()
    found.ask("c")
    found.answered("")
    assert found.obey("/retry").ask
    assert found.messages[-1] == {"role": "user", "content": "c"}
    found.answered("")
    found.ask("d")
    assert [each["content"] for each in found.messages[-3:]] == ["b", "B", "d"]


def test_a_retry_that_fails_loses_no_answer() -> None:
    """The answer that was to be replaced is back, and can be retried once more."""
    found = talk()
    found.obey("/retry")
    found.answered("")
    assert [each["content"] for each in found.messages[-2:]] == ["b", "B"]
    found.obey("/retry")
    found.answered("C")
    assert [each["content"] for each in found.messages] == ["a", "A", "b", "C"]


def test_a_question_is_answered_again() -> None:
    """The last answer is dropped, the question stays."""
    found = talk()
    assert found.obey("/retry").ask
    assert found.messages[-1] == {"role": "user", "content": "b"}


def test_undo_forgets_question_and_answer() -> None:
    """One pair at a time, until nothing is left."""
    found = talk()
    assert found.obey("/undo").text == "Forgotten. 1 answer is left."
    assert found.messages[-1]["content"] == "A"
    found.obey("/undo")
    with pytest.raises(CommandError, match="Nothing was asked yet"):
        found.obey("/undo")


def test_settings_are_set_shown_and_removed() -> None:
    """Numbers are numbers, and a dash is the model's default again."""
    found = talk()
    assert found.obey("/set").text == "Nothing is set: the model's defaults apply."
    found.obey("/set temperature 0.5")
    found.obey("/set max_tokens 9")
    found.obey("/set reasoning_effort low")
    assert found.options == {"temperature": 0.5, "max_tokens": 9, "reasoning_effort": "low"}
    assert found.obey("/set").text == "Set: temperature 0.5, max_tokens 9, reasoning_effort low."
    found.obey("/set temperature -")
    assert "temperature" not in found.options
    assert found.obey("/system -").text == "There is no system prompt."
    assert found.obey("/system Speak Latin.").text == "The system prompt is: Speak Latin."


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/modle x", "did you mean /model"),
        ("/", "There is no command /"),
        ("/set top_k 1.5", "'1.5' is no number for top_k"),
        ("/set seed", "Name the value: /set seed VALUE"),
        ("/set colour red", "colour cannot be set"),
        ("/save", "Name the file"),
    ],
)
def test_a_command_that_is_none_says_so(line: str, reason: str) -> None:
    """With what was probably meant; the conversation is as before."""
    found = talk()
    with pytest.raises(CommandError, match=reason):
        found.obey(line)
    assert found == talk()


def test_every_command_is_in_the_help() -> None:
    """What can be typed can be found."""
    found = talk()
    shown = found.obey("/help").text
    assert shown == HELP
    assert [name for name in found._commands if f"/{name}" not in shown] == ["quit", "bye"]
    for line in ("/exit", "/quit", "/bye"):
        assert found.obey(line).end


def test_the_line_below_an_answer() -> None:
    """Tokens, wait, pace and what came from the cache, as far as they are known."""
    usage = {"completion_tokens": 11, "prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 90}}
    told = "11 tokens, the first after 0.50 s, 10 tokens/s, 90 of 100 prompt tokens from the cache"
    assert summary(usage, 0.5, 1.5) == told
    assert summary({}, None, 1.0) == "0 tokens"
