"""The error table is total, and holds every promise of the product."""

from __future__ import annotations

import ast

import pytest

from rbee.contracts import patterns
from rbee.contracts.errors import ERRORS, ErrorCode
from tests.support.checkout import ROOT

# What the product promises to scripts: these names with these HTTP statuses. None: the keeper's own, never on HTTP.
PROMISED: dict[int | None, str] = {
    400: "INVALID_REQUEST context_length_exceeded INVALID_MODEL_REF INVALID_BACKEND INVALID_DEVICE",
    401: "MISSING_API_KEY INVALID_API_KEY",
    403: "MODEL_ACCESS_DENIED",
    404: "NODE_NOT_FOUND MODEL_NOT_FOUND WORKER_NOT_FOUND",
    408: "REQUEST_TIMEOUT LOADING_TIMEOUT",
    409: "NODE_EXISTS VERSION_MISMATCH",
    499: "CANCELED",
    500: "WORKER_START_FAILED WORKER_BINARY_NOT_FOUND WORKER_CRASHED WORKER_STALLED INTERNAL",
    502: "DOWNLOAD_FAILED CHECKSUM_MISMATCH CONNECTION_TIMEOUT INVALID_RESPONSE",
    503: "ALL_SLOTS_BUSY QUEUE_FULL DRAINING BACKEND_UNAVAILABLE GPU_NOT_AVAILABLE CUDA_DEVICE_FAILED",
    507: "RAM_EXHAUSTED VRAM_EXHAUSTED GPU_VRAM_EXHAUSTED DISK_FULL",
    None: "SSH_TIMEOUT SSH_AUTH_FAILED SSH_COMMAND_FAILED SSH_KEY_NOT_FOUND HOST_KEY_UNKNOWN",
}


def test_every_code_has_a_row() -> None:
    """Every error code has its row in the table, and no row is without a code."""
    assert set(ERRORS) == set(ErrorCode)


@pytest.mark.parametrize(
    ("name", "status"), [(name, status) for status, names in PROMISED.items() for name in names.split()]
)
def test_a_promised_code_has_its_status(name: str, status: int | None) -> None:
    """A code that the product promises exists and keeps its HTTP status."""
    assert ERRORS[ErrorCode(name)].http_status == status


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_row_helps(code: ErrorCode) -> None:
    """Every row has an OpenAI type and a hint in a sentence, and a name that is its value, but for capitals."""
    row = ERRORS[code]

    assert code.name == code.value.upper()
    assert row.type
    assert len(row.hint) > len("Try again.")
    assert row.http_status is None or 400 <= row.http_status <= 599


@pytest.mark.parametrize("name", ["ALL_SLOTS_BUSY", "QUEUE_FULL", "DRAINING"])
def test_busy_says_when_to_come_back(name: str) -> None:
    """What passes by itself is sent with Retry-After."""
    assert (ERRORS[ErrorCode(name)].retry_after_s or 0) > 0


def test_no_message_shows_a_pattern() -> None:
    """Every pattern of a field is one of those that have words for a person."""
    unnamed = [
        f"{path.relative_to(ROOT)}:{keyword.value.lineno}"
        for path in (ROOT / "rbee").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "pattern" and not (isinstance(keyword.value, ast.Name) and keyword.value.id in vars(patterns))
    ]
    named = [
        value for name, value in vars(patterns).items() if name.isupper() and isinstance(value, str) and "^" in value
    ]

    assert unnamed == []
    assert len(named) > 5
    for pattern in named:
        assert patterns.words(pattern)
