"""The official clients against a real worker with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.models import smollm2_path
from tests.support.worker import KEY, Worker, worker

pytestmark = pytest.mark.engine

MODEL = "SmolLM2-135M-Instruct.Q4_1"
QUESTION: Any = [{"role": "user", "content": "What is honey?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    template = Path(__file__).parents[1] / "support" / "tools.jinja"
    folder = tmp_path_factory.mktemp("worker")
    with worker(folder, "--chat-template-file", str(template), model=smollm2_path()) as it:
        it.until_idle()
        yield it


@pytest.fixture(scope="module", name="client")
def _client(it: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{str(it.http.base_url).rstrip('/')}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module", name="claude")
def _claude(it: Worker) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=str(it.http.base_url), api_key=KEY, max_retries=0) as claude:
        yield claude


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    """The list has the one model, and its name is taken."""
    (card,) = client.models.list().data

    assert card.id.endswith(f"{MODEL}.gguf")
    assert client.completions.create(model=card.id, prompt="Bees", max_tokens=1).model == card.id


def test_a_rendered_chat_is_what_the_model_reads(it: Worker) -> None:
    """The prompt has all marks of the template; its tokens, written again, are the same text."""
    prompt = it.http.post("/apply-template", json={"messages": QUESTION}).json()["prompt"]
    tokens = it.http.post("/tokenize", json={"content": prompt}).json()["tokens"]
    plain = it.http.post("/tokenize", json={"content": prompt, "parse_special": False}).json()["tokens"]

    assert prompt.endswith("<|im_start|>user\nWhat is honey?<|im_end|>\n<|im_start|>assistant\n")
    assert it.http.post("/detokenize", json={"tokens": tokens}).json()["content"] == prompt
    assert len(plain) > len(tokens)


def test_ollamas_clients_get_the_same_answer(it: Worker) -> None:
    """A chat, and a prompt in the template, have one text with one seed, whole or in lines; a schema is held."""
    options = {"seed": 5, "num_predict": 16}
    whole = it.http.post("/api/chat", json={"messages": QUESTION, "options": options, "stream": False}).json()
    lines = it.http.post("/api/generate", json={"prompt": QUESTION[0]["content"], "options": options}).text
    ask = {"prompt": "Name a city.", "format": CITY, "stream": False}
    held = it.http.post("/api/generate", json=ask).json()["response"]

    pieces = [json.loads(line) for line in lines.splitlines()]
    assert "".join(piece["response"] for piece in pieces) == whole["message"]["content"]
    assert pieces[-1]["eval_count"] == whole["eval_count"] == 16
    assert set(json.loads(held)) == {"city"}


def test_a_chat_at_once_and_as_a_stream_is_the_same(client: openai.OpenAI) -> None:
    """With one seed the answer has one text, streamed or not; the stream ends with the same counts."""
    fields: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_completion_tokens": 16, "seed": 5}

    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens == 16


def test_a_prompt_that_was_read_before_is_said_to_be_cached(client: openai.OpenAI) -> None:
    """The second request with the same prompt has nearly all of its tokens from the cache, and says so."""
    question: Any = [{"role": "user", "content": "Tell me of the waggle dance of bees, and of what it means to them."}]

    counts = [client.chat.completions.create(model=MODEL, messages=question, max_tokens=2).usage for _ in range(2)]

    assert counts[1] is not None
    assert counts[1].prompt_tokens_details is not None
    assert (counts[1].prompt_tokens_details.cached_tokens or 0) >= counts[1].prompt_tokens - 2


def test_several_answers_differ_and_can_be_had_again(client: openai.OpenAI) -> None:
    """With a seed, n answers are n different ones, the same every time."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "messages": QUESTION,
        "max_tokens": 16,
        "n": 3,
        "seed": 1,
        "temperature": 1.5,
    }

    texts = [[choice.message.content for choice in client.chat.completions.create(**fields).choices] for _ in range(2)]

    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3


def test_several_answers_read_their_prompt_once(client: openai.OpenAI, it: Worker) -> None:
    """Of n answers one reads the prompt, the others copy what it has read."""
    question: Any = [{"role": "user", "content": "Tell me " + "more and more about bees, " * 20}]

    def cached() -> float:
        return float(it.http.get("/metrics").text.split("\nrbee_worker_prompt_tokens_cached_total ")[1].split()[0])

    before = cached()
    usage = client.chat.completions.create(model=MODEL, messages=question, n=3, max_tokens=2).usage

    assert usage is not None
    assert cached() - before >= 2 * (usage.prompt_tokens - 2)


def test_log_probabilities_are_those_of_the_text(client: openai.OpenAI) -> None:
    """The tokens with scores are the text; greedily chosen ones are the likeliest; likelier ones come first."""
    (choice,) = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    ).choices

    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert "".join(entry.token for entry in content) == choice.message.content
    for entry in content:
        tops = [top.logprob for top in entry.top_logprobs]
        assert entry.top_logprobs[0].token == entry.token
        assert tops == sorted(tops, reverse=True)
        assert entry.logprob == tops[0] <= 0.0


def test_a_bias_forbids_and_forces(client: openai.OpenAI) -> None:
    """A token with the bias -100 never comes; with 100 nothing else does."""
    fields: dict[str, Any] = {"model": MODEL, "prompt": "Bees make", "max_tokens": 4, "temperature": 0}

    free = client.completions.create(**fields).choices[0].text
    forced = client.completions.create(**fields, logit_bias={"30": 100}).choices[0].text
    others = {str(token): -100 for token in range(30, 1030)}
    forbidden = client.completions.create(**fields, logit_bias=others).choices[0].text

    assert len(set(forced)) == 1
    assert forced not in free
    assert forbidden != free


def test_a_schema_is_held(client: openai.OpenAI) -> None:
    """An answer with a schema is JSON that fits, however small the model is; any object for json_object."""
    schema: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    for seed in range(3):
        (choice,) = client.chat.completions.create(
            model=MODEL, messages=QUESTION, response_format=schema, seed=seed, temperature=1.2
        ).choices

        assert choice.finish_reason == "stop"
        city = json.loads(choice.message.content or "")["city"]
        assert len(city) <= 12


def test_a_grammar_is_held(client: openai.OpenAI) -> None:
    """A grammar of the client's own shapes the answer."""
    answer = client.completions.create(model=MODEL, prompt="Bees:", extra_body={"grammar": 'root ::= "yes" | "no"'})

    assert answer.choices[0].text in ("yes", "no")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI, choice: Any) -> None:
    """Where a call is asked for it comes, with arguments that fit, and its outcome can be told to the model."""
    fields: dict[str, Any] = {"model": MODEL, "tools": [WEATHER], "parallel_tool_calls": False, "seed": 3}

    (answer,) = client.chat.completions.create(messages=QUESTION, tool_choice=choice, **fields).choices

    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls or []
    assert call.type == "function"
    assert "city" in json.loads(call.function.arguments)
    outcome: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    more = client.chat.completions.create(messages=[*QUESTION, answer.message, outcome], max_tokens=4, **fields)
    assert more.choices[0].finish_reason in ("stop", "length")


def test_a_call_as_a_stream_is_the_call_at_once(client: openai.OpenAI) -> None:
    """What the client puts together from the pieces of a call is what it gets at once."""
    fields: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "tools": [WEATHER], "tool_choice": "required"}
    fields |= {"parallel_tool_calls": False, "temperature": 0}

    (whole,) = client.chat.completions.create(**fields).choices[0].message.tool_calls or []
    with client.chat.completions.stream(**fields) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []

    assert whole.type == call.type == "function"
    assert call.function.arguments == whole.function.arguments
    assert len([piece for piece in pieces if piece]) > 1


def test_a_call_of_a_response_as_a_stream_is_the_call_at_once(client: openai.OpenAI) -> None:
    """What the client puts together from the pieces of a response's call is what it gets at once."""
    tool: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
    fields: dict[str, Any] = {"model": MODEL, "input": "Weather?", "tools": [tool], "tool_choice": "required"}
    fields |= {"parallel_tool_calls": False, "temperature": 0}

    (whole,) = client.responses.create(**fields).output
    with client.responses.stream(**fields) as stream:
        (item,) = stream.until_done().get_final_response().output

    assert whole.type == item.type == "function_call"
    assert item.arguments == whole.arguments


def test_a_call_of_a_message_as_a_stream_is_the_call_at_once(claude: anthropic.Anthropic) -> None:
    """What Anthropic's client puts together from the pieces of a call is what it gets at once."""
    tool: Any = {"name": "weather", "input_schema": CITY}
    choice: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    fields: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 100, "tools": [tool]}
    fields |= {"tool_choice": choice, "extra_body": {"temperature": 0}}

    (whole,) = claude.messages.create(**fields).content
    with claude.messages.stream(**fields) as stream:
        (block,) = stream.get_final_message().content

    assert whole.type == block.type == "tool_use"
    assert block.input == whole.input != {}


def test_a_call_that_the_model_chooses_is_held_to_its_schema(client: openai.OpenAI) -> None:
    """A model that may call a tool does so with arguments that fit, even where it has seen others before."""
    turns: list[Any] = []
    for number, city in enumerate(("Paris", "Rome", "Madrid")):
        function = {"name": "weather", "arguments": json.dumps({"town": city, "days": 3})}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        turns += [
            {"role": "user", "content": f"How is the weather in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]
    turns.append({"role": "user", "content": "How is the weather in Berlin?"})

    (choice,) = client.chat.completions.create(
        model=MODEL, messages=turns, tools=[WEATHER], temperature=0, max_tokens=60
    ).choices

    assert choice.finish_reason == "tool_calls"
    (told,) = choice.message.tool_calls or []
    assert told.type == "function"
    assert list(json.loads(told.function.arguments)) == ["city"]


def test_a_token_that_is_not_the_models_is_refused_also_for_the_echo(client: openai.OpenAI, it: Worker) -> None:
    """llama.cpp ends the process that asks it for the text of such a token, so it is not asked."""
    model = client.models.list().data[0].id
    for tokens in ([94186852], [49152], [-1]):
        with pytest.raises(openai.BadRequestError, match="prompt"):
            client.completions.create(model=model, prompt=tokens, echo=True, max_tokens=1)
    assert it.process.poll() is None
    assert client.completions.create(model=model, prompt=[1, 2], echo=True, max_tokens=1).choices


def test_errors_have_the_types_of_the_client(client: openai.OpenAI, it: Worker) -> None:
    """The client raises its own exceptions, with our code in the body."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, n=100)
    assert caught.value.code == "INVALID_REQUEST"
    assert caught.value.param == "n"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0).models.list()


def test_responses_at_once_and_as_a_stream(client: openai.OpenAI) -> None:
    """A response has its text; its stream tells each piece and ends with the whole."""
    fields: dict[str, Any] = {
        "model": MODEL,
        "input": "What is honey?",
        "instructions": "Be short.",
        "max_output_tokens": 9,
    }

    whole = client.responses.create(**fields)
    events = list(client.responses.create(**fields, stream=True))
    final = events[-1].response
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")

    assert whole.status == final.status == "incomplete"
    assert whole.usage is not None
    assert whole.usage.output_tokens == 9
    assert final.output_text == told != ""
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_with_a_tool(client: openai.OpenAI) -> None:
    """A response may be a call."""
    tool: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}

    response = client.responses.create(
        model=MODEL, input="Weather?", tools=[tool], tool_choice="required", parallel_tool_calls=False
    )

    (item,) = response.output
    assert item.type == "function_call"
    assert "city" in json.loads(item.arguments)


def test_messages_at_once_and_as_a_stream(claude: anthropic.Anthropic) -> None:
    """A message of Anthropic's client is answered; its stream makes the same kind of message."""
    fields: dict[str, Any] = {"model": MODEL, "max_tokens": 6, "messages": QUESTION, "system": "Be short."}

    whole = claude.messages.create(**fields)
    with claude.messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert whole.stop_reason == final.stop_reason == "max_tokens"
    assert whole.usage.output_tokens == 6
    assert final.content[0].type == "text"
    assert final.content[0].text == text


def test_a_stop_sequence_is_named(claude: anthropic.Anthropic) -> None:
    """The stop sequence that ended an answer is told."""
    message = claude.messages.create(
        model=MODEL, max_tokens=60, messages=QUESTION, stop_sequences=["zzz", " is"], extra_body={"temperature": 0}
    )

    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " is")


def test_a_message_with_a_tool_and_its_result(claude: anthropic.Anthropic) -> None:
    """A tool of Anthropic's client is called, and its result is read."""
    tool: Any = {"name": "weather", "input_schema": CITY}
    choice: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}

    message = claude.messages.create(model=MODEL, max_tokens=100, messages=QUESTION, tools=[tool], tool_choice=choice)
    (block,) = message.content
    assert message.stop_reason == "tool_use"
    assert block.type == "tool_use"
    assert "city" in block.input
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    turns: Any = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(model=MODEL, max_tokens=4, messages=turns, tools=[tool]).content


def test_tokens_are_counted_as_they_are_read(claude: anthropic.Anthropic) -> None:
    """The count of a conversation is what reading it takes."""
    count = claude.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    usage = claude.messages.create(model=MODEL, max_tokens=1, messages=QUESTION).usage

    assert count == usage.input_tokens + (usage.cache_read_input_tokens or 0)
