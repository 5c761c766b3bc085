"""Decide what a client may see of an error, and of the progress of its request. Pure.

A client is told what it can change itself, and of a model that is none. Why a file cannot be fetched, where a worker
runs, what its log says: that is the operator's, who finds it in the queen's log under the request's id.
What is not listed here is not shown.
"""

from __future__ import annotations

from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Fallback, Narration, TaskAccepted, TaskPlaced
from rbee.errors import RbeeError
from rbee.queen.progress import Event

ASK_OPERATOR: Final = "Ask the operator of this service, and name the request_id: the queen's log has the cause."

# About the client's own request: shown as they are.
_SHOWN: Final = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        ErrorCode.INVALID_BACKEND,
        ErrorCode.MISSING_API_KEY,
        ErrorCode.INVALID_API_KEY,
        ErrorCode.FORBIDDEN,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.ROUTE_NOT_FOUND,
        ErrorCode.METHOD_NOT_ALLOWED,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.HEADER_TOO_LARGE,
        ErrorCode.UNSUPPORTED_ENCODING,
        ErrorCode.QUEUE_FULL,
        ErrorCode.CANCELED,
        ErrorCode.INTERNAL,
    }
)
# About how a file is had: one code for all, since each of them would tell something about it.
_FILE: Final = frozenset(
    {
        ErrorCode.DOWNLOAD_FAILED,
        ErrorCode.CHECKSUM_MISMATCH,
        ErrorCode.MODEL_ACCESS_DENIED,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.INVALID_MODEL_REF,
        ErrorCode.DISK_FULL,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.STATE_CORRUPT,
    }
)
# Passing: the client may try again, which the code and Retry-After tell its library.
_MESSAGES: Final = {
    ErrorCode.ALL_SLOTS_BUSY: "All slots of the model are busy.",
    ErrorCode.DRAINING: "The service is stopping.",
    ErrorCode.WORKER_LOADING: "The model is still loading.",
    ErrorCode.REQUEST_TIMEOUT: "The request exceeded its deadline.",
    ErrorCode.WORKER_CRASHED: "The answer broke off.",
    ErrorCode.WORKER_STALLED: "The answer came to a standstill.",
    ErrorCode.CONNECTION_TIMEOUT: "The machine that serves the model does not answer.",
    ErrorCode.DEVICE_YIELDED: "The machine that serves the model is in use for something else.",
    ErrorCode.QUARANTINED: "The model is not served to this key for a while, because its workers crashed.",
}
_TRY_AGAIN: Final = "Try again; if that fails too, ask the operator of this service, and name the request_id."
_NUMBERS: Final = ("slots_total", "slots_busy", "tokens")
_PLACES: Final = ("worker_id", "node")

_STEPS: Final = {
    "place": "the model is being loaded",
    "start-hive": "the model is being loaded",
    "spawn": "the model is being loaded",
    "load": "the model is being loaded",
    "download": "the model is being fetched",
    "wait": "the model is being fetched",
    "retry": "waiting, then trying again",
    "ready": "the model is ready",
}


def reduced_error(error: RbeeError) -> RbeeError:
    """Return what a client is shown instead of *error*: the same where it is about its own request."""
    if error.code in _SHOWN:
        if not any(name in error.details for name in _PLACES):
            return error
        return RbeeError(
            error.code,
            error.message,
            details={name: value for name, value in error.details.items() if name not in _PLACES},
            hint=error.hint,
            param=error.param,
            retry_after_s=error.retry_after_s,
        )
    if error.code in _FILE:
        return RbeeError(ErrorCode.DOWNLOAD_FAILED, "The model cannot be fetched.", hint=ASK_OPERATOR)
    if error.code is ErrorCode.MODEL_INVALID:
        return RbeeError(error.code, f"The model cannot be used{_reason(error)}.", hint=ASK_OPERATOR, param="model")
    details = {name: error.details[name] for name in _NUMBERS if isinstance(error.details.get(name), int)}
    if tried := error.details.get("fallbacks"):
        details["fallbacks"] = [one["name"] for one in tried]
    message = _MESSAGES.get(error.code)
    return RbeeError(
        error.code,
        message or "The model cannot be served now.",
        details=details,
        hint=_TRY_AGAIN if message else ASK_OPERATOR,
        retry_after_s=error.retry_after_s,
    )


def _reason(error: RbeeError) -> str:
    """Return what is wrong with a model's file, without what the file holds (in parentheses) and where it is."""
    reason = str(error.details.get("reason", "")).partition(" (")[0]
    return f": {reason}" if reason and "/" not in reason else ""


def reduced_event(event: Event) -> Event | None:
    """Return what a client is shown instead of *event*, None for nothing."""
    if isinstance(event, TaskAccepted):
        return event
    if isinstance(event, TaskPlaced):
        return event.model_copy(update={"node": "", "worker_id": ""})
    if isinstance(event, Progress):
        if event.download is None:
            return event
        hidden = {"local_path": None, "model_id": None, "entry": None, "reason": None, "source": None}
        return Progress(download=event.download.model_copy(update=hidden))
    if event.action == "queue":
        return event
    if isinstance(event, Fallback):
        return event.model_copy(update={"human": f"the model cannot be served now: using {event.model} instead"})
    step = _STEPS.get(event.action)
    return None if step is None else Narration(actor="queen-rbee", action=event.action, human=step, emoji=event.emoji)
