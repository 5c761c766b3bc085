"""What a client is shown of errors and progress: what is about its own request, and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import DownloadProgress
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Narration, TaskPlaced
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error, reduced_event
from rbee.queen.progress import Event
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.tasks.client_sink import ClientSink

SECRETS = ("/var/lib/secret", "10.0.0.7", "attic", "worker-3f9c")
OWN = {
    *("INVALID_REQUEST", "INVALID_BACKEND", "MISSING_API_KEY", "INVALID_API_KEY", "FORBIDDEN", "TOO_MANY_REQUESTS"),
    *("ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "PAYLOAD_TOO_LARGE", "HEADER_TOO_LARGE", "QUEUE_FULL", "CANCELED"),
    *("INTERNAL", "context_length_exceeded", "UNSUPPORTED_ENCODING"),
}


@pytest.mark.parametrize("code", [code for code in ErrorCode if code.value not in OWN])
def test_no_other_error_shows_anything_of_the_machines(code: ErrorCode) -> None:
    """Whatever the code is, also one that comes later: no path, address, node, worker, log or hint passes."""
    text = " ".join(SECRETS)
    error = RbeeError(code, text, details={"log_tail": [text], "node": "attic", "slots_busy": 4}, hint=text, param=text)

    shown = json.dumps(reduced_error(error).body("req-1"))

    assert not [secret for secret in SECRETS if secret in shown]
    assert "req-1" in shown


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_is_about_the_own_request_is_shown(name: str) -> None:
    """A client can mend its request only if it is told what is wrong with it."""
    error = RbeeError(ErrorCode(name), "max_tokens: too large.", param="max_tokens")

    assert reduced_error(error) is error


@pytest.mark.parametrize("name", sorted(OWN))
def test_where_the_own_request_ran_is_not_shown(name: str) -> None:
    """What a worker refuses in mid-answer is shown as it is, but for the worker and its node."""
    details = {"limit": 16, "worker_id": "worker-3f9c", "node": "attic"}
    error = RbeeError(ErrorCode(name), "grammar: too large.", param="grammar", details=details, retry_after_s=7)

    shown = reduced_error(error)

    assert (shown.details, shown.message, shown.param) == ({"limit": 16}, error.message, "grammar")
    assert (shown.hint, shown.retry_after_s) == (error.hint, 7)
    assert error.details == details  # for the queen's log


def test_all_causes_for_a_file_look_the_same() -> None:
    """Whether a file is not there, another one, or closed cannot be told apart."""
    names = "DOWNLOAD_FAILED CHECKSUM_MISMATCH MODEL_ACCESS_DENIED MODEL_NOT_FOUND INVALID_MODEL_REF"
    bodies = [json.dumps(reduced_error(RbeeError(ErrorCode(name), name)).body()) for name in names.split()]

    assert len(set(bodies)) == 1


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (
            "it is truncated: 100 bytes long, its tensors need 900",
            ": it is truncated: 100 bytes long, its tensors need 900",
        ),
        ("it is not a GGUF file (it begins with b'root', not b'GGUF')", ": it is not a GGUF file"),
        ("llama.cpp reports: failed to load model '/var/lib/secret/m.gguf'", ""),
        ("", ""),
    ],
)
def test_a_model_that_is_none_is_told_as_that(reason: str, shown: str) -> None:
    """A client learns that the model cannot be used and why, but neither what is in its file nor where that lies."""
    error = RbeeError(ErrorCode.MODEL_INVALID, "/var/lib/secret", details={"path": "/var/lib/secret", "reason": reason})

    told = reduced_error(error)

    assert (told.code, told.message) == (ErrorCode.MODEL_INVALID, f"The model cannot be used{shown}.")
    assert told.details == {}


def test_busy_keeps_its_numbers_and_when_to_come_back() -> None:
    """Clients retry by code, slots and Retry-After."""
    error = RbeeError(ErrorCode.ALL_SLOTS_BUSY, "attic", details={"slots_total": 4, "slots_busy": 4, "node": "attic"})

    shown = reduced_error(error)

    assert (shown.code, shown.details, shown.retry_after_s) == (error.code, {"slots_total": 4, "slots_busy": 4}, 1)


def test_progress_shows_how_far_and_not_from_where() -> None:
    """Bytes and layers pass; paths, reasons, nodes and workers do not."""
    text = " ".join(SECRETS)
    events: list[Event] = [
        Progress(
            download=DownloadProgress(
                stage="retrying", bytes_downloaded=5, local_path=text, reason=text, source="attic"
            )
        ),
        TaskPlaced(task_id="t", node="attic", worker_id="worker-3f9c", backend=Backend.CPU, device=0, warm=True),
        *(
            Narration(actor="rbee-hive", action=action, human=text)
            for action in ("download", "wait", "retry", "spawn", "new")
        ),
    ]
    shown = [reduced_event(event) for event in events]

    assert not [secret for secret in SECRETS if secret in repr(shown)]
    assert isinstance(shown[0], Progress)
    assert shown[0].download is not None
    assert shown[0].download.bytes_downloaded == 5
    assert shown[-1] is None


def test_what_reads_the_same_is_told_a_client_once() -> None:
    """Several steps of the fleet are one for a client."""
    told: list[Event] = []

    class Sink:
        write = send = comment = start = end = None

        async def emit(self, event: Event) -> None:
            told.append(event)

    async def scenario() -> None:
        sink = ClientSink(cast("ResponseSink", Sink()))
        for action in ("place", "spawn", "load", "ready", "load"):
            await sink.emit(Narration(actor="queen-rbee", action=action, human="attic", emoji="x"))

    asyncio.run(scenario())
    assert [event.human for event in told if isinstance(event, Narration)] == [
        "the model is being loaded",
        "the model is ready",
        "the model is being loaded",
    ]
