"""What a body may hold before anything is built of it."""

from __future__ import annotations

import json
import time

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.json_body import JsonParser
from rbee.daemonkit.json_limits import MAX_NODES, check_json
from rbee.errors import RbeeError

MB = 1_000_000


def refusal(body: bytes) -> RbeeError | None:
    """Return the error for *body*, None if it may be parsed."""
    try:
        check_json(body)
    except RbeeError as error:
        return error
    return None


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":[' + b"{}," * 1_300_000 + b"{}]}",
        b"{" + b",".join(b'"%x":1' % number for number in range(350_000)) + b"}",
        b'{"prompt":[' + b'"",' * 1_300_000 + b'""]}',
        b'{"prompt":[' + b"1," * 2_000_000 + b"1]}",
        b'{"text":"' + b"\\\\" * 1000 + b'","prompt":[' + b"[]," * 1_000_000 + b"[]]}",
        b'{"text":"' + b'\\"' * 1000 + b'","prompt":[' + b"[]," * 1_000_000 + b"[]]}",
    ],
    ids=["objects", "names", "strings", "numbers", "behind escaped backslashes", "behind escaped quotes"],
)
def test_a_body_of_very_many_values_is_refused(body: bytes) -> None:
    """More values than any request needs are refused by their number, whatever kind they are of."""
    error = refusal(body)

    assert error is not None
    assert error.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert error.details["max_values"] > 0


@pytest.mark.parametrize(
    "text",
    [",", "[", "{", '"', "\\", '\\"', 'x",[{', "\n"],
)
def test_what_stands_in_a_string_is_not_counted(text: str) -> None:
    """A prompt of 3 MB passes, whatever characters it is made of."""
    prompt = text * (3 * MB // len(json.dumps(text)[1:-1]))
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": prompt}]}).encode()
    assert len(body) > 2 * MB

    assert refusal(body) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [list(range(100_000, 100_330))] * 2048},
        {"prompt": list(range(131_072)) * 4},
        {"messages": [{"role": "user", "content": "x"}] * 10_000},
        {"input": ["a text"] * 2048, "dimensions": 512},
    ],
    ids=["lists of token ids", "token ids", "messages", "texts"],
)
def test_the_largest_honest_request_passes(fields: dict[str, object]) -> None:
    """As many messages, texts and token ids as the interfaces allow are no reason to refuse a body."""
    assert refusal(json.dumps(fields).encode()) is None


def best_ms(body: bytes) -> float:
    """Return the shortest of a few checks, in milliseconds of processor time."""
    took = []
    for _ in range(5):
        began = time.thread_time()
        refusal(body)
        took.append(time.thread_time() - began)
    return min(took) * 1000


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"prompt": "Once upon a time, there was a hive. " * 100_000}).encode(),
        json.dumps({"prompt": list(range(100_000, 600_000))}).encode(),
        b'{"prompt":[' + b"{}," * 1_300_000 + b"{}]}",
    ],
    ids=["prose", "token ids", "objects"],
)
def test_the_check_takes_a_millisecond_a_megabyte(body: bytes) -> None:
    """A body of some megabytes is checked in as many milliseconds, give or take a slow machine."""
    assert best_ms(body) < 4 * len(body) / MB


@pytest.mark.parametrize("model", [CompletionRequest, EmbeddingRequest, ChatRequest, TaskRequest])
@pytest.mark.parametrize("item", ["{}", "1.5", '"x"', "null", "[{}]"])
def test_a_list_ends_at_its_first_invalid_item(model: type, item: str) -> None:
    """However many items are wrong, a few errors are built, and ten at most are told."""
    items = ",".join([item] * (MAX_NODES // 10))
    body = f'{{"prompt":[{items}],"input":[{items}],"messages":[{items}],"stop":[{items}]}}'.encode()
    began = time.thread_time()

    with pytest.raises(RbeeError) as refused:
        JsonParser(model)(body)

    assert time.thread_time() - began < 1
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert 0 < len(refused.value.details["errors"]) <= 10


def test_very_many_errors_are_counted_and_not_built() -> None:
    """An object with tens of thousands of unknown fields gets their number."""
    body = ("{" + ",".join(f'"x{number}":1' for number in range(60_000)) + "}").encode()

    with pytest.raises(RbeeError, match="60001 errors"):
        JsonParser(TaskRequest)(body)


def test_ten_errors_are_told() -> None:
    """Of more findings the first ten are in the details."""
    body = ("{" + ",".join(f'"x{number}":1' for number in range(60)) + "}").encode()

    with pytest.raises(RbeeError) as refused:
        JsonParser(TaskRequest)(body)

    assert len(refused.value.details["errors"]) == 10


def test_deep_nesting_is_refused_by_the_parser() -> None:
    """A body nested more deeply than the parser allows is invalid, in any place that takes any JSON."""
    schema = b'{"type":' * 1000 + b"1" + b"}" * 1000
    body = b'{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f",'
    body += b'"parameters":' + schema + b"}}]}"

    with pytest.raises(RbeeError, match="recursion limit"):
        JsonParser(ChatRequest)(body)
