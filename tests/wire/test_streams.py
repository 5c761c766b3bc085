"""The events of every stream are those of its golden file, in the file and from real daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rbee.contracts.queen import Progress
from rbee.daemonkit.sse import encode
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.waiting import slowness
from tests.support.worker import worker
from tests.wire.streams import DONE, FOLDER, MESSAGE, STREAMS, Event, Token, message_of, read


def golden(stream: str) -> str:
    return (FOLDER / f"{stream}.sse").read_text(encoding="utf-8")


def check(stream: str, events: list[Event]) -> None:
    """Check that a stream carries what it may, ends as its golden file does, and leaves out no kind of event."""
    known = list(read(golden(stream).splitlines()))
    assert events[-1] == known[-1] == (MESSAGE, DONE)
    seen = {type(message_of(stream, event)) for event in events[:-1]}
    expected = {type(message_of(stream, event)) for event in known[:-1]}
    # A load that is over before anybody looks has no progress to show.
    assert seen | {Progress} == expected | {Progress}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_golden_stream_is_written_as_the_daemons_write(stream: str) -> None:
    """Each event of a golden stream fits its model, and is written again as the same text."""
    events = list(read(golden(stream).splitlines()))

    for name, text in events:
        if text != DONE:
            message = message_of(stream, (name, text))
            again = encode(message, None if name == MESSAGE else name).decode()
            assert again in golden(stream)
            assert json.loads(again.partition("data: ")[2]) == json.loads(text)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_golden_stream_has_every_event(stream: str) -> None:
    """A golden stream has an event of each model that the stream may carry, and ends in `[DONE]` or an error."""
    events = list(read(golden(stream).splitlines()))
    seen = {type(message_of(stream, event)) for event in events if event[1] != DONE}

    assert seen == {model for models in STREAMS[stream].values() for model in models}
    assert events[-1][0] == "error" if "error" in STREAMS[stream] else events[-1] == (MESSAGE, DONE)


def test_every_stream_has_its_file_and_every_file_its_stream() -> None:
    """The golden streams are those that are declared."""
    assert {path.stem for path in FOLDER.glob("*.sse")} == set(STREAMS)


def test_an_event_with_a_new_field_does_not_fit() -> None:
    """A field that no model of the stream has is found out, in an event without a model too."""
    message_of("worker-inference", (MESSAGE, '{"token": "bee", "index": 0}'))

    with pytest.raises(AssertionError, match="may not carry"):
        message_of("worker-inference", (MESSAGE, '{"token": "bee", "index": 0, "id": 7}'))


@pytest.mark.process
def test_a_worker_streams_as_its_golden_files_say(tmp_path: Path) -> None:
    """Tokens, end, failure and progress of loading come from a worker as the files show."""
    fake = {"load_s": slowness(), "tokens_per_s": 200}
    with worker(tmp_path, "--slots", "1", fake=fake) as it:
        check("worker-loading", events(it.http, "GET", "/v1/loading/progress"))
        it.until_idle()
        check("worker-inference", events(it.http, "POST", "/v1/inference", {"prompt": "Bees?", "max_tokens": 5}))


@pytest.fixture(name="queen")
def _queen(tmp_path: Path) -> Iterator[httpx.Client]:
    machine = Machine(tmp_path)
    machine.configure("worker", engine="fake")
    machine.fake(load_s=slowness())
    machine.configure("models", bee=f"file://{write_gguf(tmp_path / 'bee.gguf')}")
    try:
        assert machine.run("rbee-keeper", "daemon", "start").code == 0
        key = (machine.home / "secrets" / "api-key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        url = f"http://127.0.0.1:{machine.queen_port}"
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            yield client
    finally:
        machine.close()


@pytest.mark.process
def test_a_queen_streams_as_its_golden_files_say(queen: httpx.Client) -> None:
    """Tasks, spawns, downloads and logs come from a queen as the files show."""
    here = {"node": "localhost", "model": "bee"}

    check("queen-task", events(queen, "POST", "/v2/tasks", {**here, "prompt": "Bees?", "max_tokens": 5}))
    check("queen-spawn", events(queen, "POST", "/v2/workers/spawn", here))
    check("logs", events(queen, "GET", "/v2/logs?node=localhost"))


def events(client: httpx.Client, method: str, path: str, body: Any = None) -> list[Event]:
    with client.stream(method, path, json=body) as response:
        assert response.status_code == 200, response.read()
        return list(read(response.iter_lines()))


def test_a_token_has_two_fields() -> None:
    """A piece of an answer has its text and its number, and nothing that costs bytes for each token."""
    assert set(Token.model_fields) == {"token", "index"}
