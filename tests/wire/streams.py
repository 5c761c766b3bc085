"""The streams of events: what each may carry, and the golden file that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rbee.contracts.error_body import ErrorBody
from rbee.contracts.models import DownloadProgress, LoadingProgress
from rbee.contracts.queen import LogLine, Progress, WorkerSpawned
from rbee.contracts.tasks import DoneEvent, Narration, TaskAccepted, TaskPlaced

FOLDER = Path(__file__).with_name("golden")
DONE = "[DONE]"
MESSAGE = "message"  # what an event without a name is called


class Token(BaseModel):
    """A piece of an answer, which the worker writes without a model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str
    index: int


Event = tuple[str, str]
"""The name of an event, and its data as text."""

_STEPS: Mapping[str, tuple[type[BaseModel], ...]] = {"narration": (Narration,), "progress": (Progress,)}
_FAILURE: Mapping[str, tuple[type[BaseModel], ...]] = {"error": (ErrorBody,)}
# By the name of the golden file: the models of each event.
STREAMS: Mapping[str, Mapping[str, tuple[type[BaseModel], ...]]] = {
    "worker-inference": {MESSAGE: (Token, DoneEvent)},
    "worker-inference-failed": {MESSAGE: (Token,), **_FAILURE},
    "worker-loading": {MESSAGE: (LoadingProgress,)},
    "hive-download": {MESSAGE: (DownloadProgress,)},
    "logs": {MESSAGE: (LogLine,)},
    "queen-task": {"task": (TaskAccepted,), "placed": (TaskPlaced,), **_STEPS, MESSAGE: (Token, DoneEvent)},
    "queen-task-failed": {"task": (TaskAccepted,), "narration": (Narration,), **_FAILURE},
    "queen-spawn": {**_STEPS, MESSAGE: (WorkerSpawned,)},
    "queen-download": _STEPS,
}


def read(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream; comments are passed over."""
    name = MESSAGE
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, value
            name = MESSAGE
        else:
            assert not field, f"a stream has the line {line!r}"


def message_of(stream: str, event: Event) -> BaseModel:
    """Return an event as the model that its stream has for it; fails for one with unknown fields or none."""
    name, text = event
    data: dict[str, Any] = json.loads(text)
    for model in STREAMS[stream].get(name, ()):
        if set(data) <= set(model.model_fields):
            try:
                return model.model_validate_json(text)
            except ValidationError:
                continue
    raise AssertionError(f"{stream} may not carry {name}: {text}")
