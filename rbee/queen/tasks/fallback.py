"""Decide what is tried where a declared model cannot be served now: the names of its `fallback`, in order. Pure.

A failure is a reason to try another model where it is about the model or the machines, and no worker has begun with
the request. What is wrong with the request itself would be wrong elsewhere too, and a request at which a worker
crashed or came to a standstill is not handed to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import Fallback, TaskRequest
from rbee.errors import RbeeError
from rbee.queen.scheduling.rejections import CLIENT_BLOCKED
from rbee.queen.serving.declarations import Alternative
from rbee.queen.tasks.upstream_request import CompatRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_REASONS: Final = frozenset(
    {
        # where it could run
        ErrorCode.NODE_NOT_FOUND,
        ErrorCode.CONNECTION_TIMEOUT,
        ErrorCode.VERSION_MISMATCH,
        ErrorCode.DRAINING,
        ErrorCode.QUARANTINED,
        ErrorCode.DEVICE_YIELDED,
        ErrorCode.INVALID_DEVICE,
        ErrorCode.BACKEND_UNAVAILABLE,
        ErrorCode.GPU_NOT_AVAILABLE,
        ErrorCode.CUDA_DEVICE_FAILED,
        ErrorCode.RAM_EXHAUSTED,
        ErrorCode.VRAM_EXHAUSTED,
        ErrorCode.GPU_VRAM_EXHAUSTED,
        # its file
        ErrorCode.INVALID_MODEL_REF,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.MODEL_ACCESS_DENIED,
        ErrorCode.MODEL_INVALID,
        ErrorCode.DOWNLOAD_FAILED,
        ErrorCode.CHECKSUM_MISMATCH,
        ErrorCode.DISK_FULL,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.STATE_CORRUPT,
        # its worker
        ErrorCode.LOADING_TIMEOUT,
        ErrorCode.WORKER_BINARY_NOT_FOUND,
        ErrorCode.WORKER_START_FAILED,
        ErrorCode.WORKER_LOADING,
        ErrorCode.ALL_SLOTS_BUSY,  # also after the time that a request waits for a slot
        ErrorCode.INVALID_RESPONSE,
    }
)
# What another model may refuse of a request that the first one would have taken.
_REFUSED_BY_ANOTHER: Final = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.CONTEXT_LENGTH_EXCEEDED})
# What these answer is made of the model's own vectors or tokens: another model's would be mistaken for them.
_OF_THE_MODEL: Final = frozenset(
    {
        "/v1/embeddings",
        "/api/embed",
        "/api/embeddings",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/v1/messages/count_tokens",
    }
)

Request = TaskRequest | CompatRequest


class Fallbacks:
    """The models to try for one request, the first of them the one that was asked for by *name*.

    *address* returns the request as it is made to another one.
    """

    def __init__(
        self, name: str, alternatives: Sequence[Alternative], address: Callable[[Alternative], Request]
    ) -> None:
        self._name = name
        self._left = list(alternatives)
        self._address = address
        self._failed: list[tuple[str, RbeeError]] = []

    @property
    def left(self) -> Sequence[Alternative]:
        """Return the models that are left to try."""
        return self._left

    def after(self, error: RbeeError) -> tuple[Alternative, Request, Fallback]:
        """Return what is tried after *error*, the request to it, and what the client is told.

        Raises RbeeError where nothing is: *error*, if it is no reason, else the first one, with all that was tried.
        """
        if not self._is_reason(error):
            raise error
        self._failed.append((self._name, error))
        if not self._left:
            raise self._summary() from error
        before = self._name
        alternative = self._left.pop(0)
        self._name = alternative.name
        reason = error.message.rstrip(".")
        told = Fallback(
            actor="queen-rbee",
            action="fallback",
            human=f"{before} cannot be served now ({reason}): using {alternative.name} instead",
            emoji="🔀",
            model=alternative.name,
        )
        return alternative, self._address(alternative), told

    def _is_reason(self, error: RbeeError) -> bool:
        if error.code in _REFUSED_BY_ANOTHER:
            return bool(self._failed)
        # Who is kept from one model for the crashes of its workers is not sent on to the next one.
        return error.code in _REASONS and not error.details.get(CLIENT_BLOCKED)

    def _summary(self) -> RbeeError:
        """Return the first error, with those of the models that were tried in its place."""
        (_, first), *others = self._failed
        tried = [{"name": name, "code": error.code.value, "why": error.message} for name, error in others]
        return RbeeError(
            first.code,
            first.message,
            details={**first.details, "fallbacks": tried},
            hint=first.hint,
            param=first.param,
            retry_after_s=first.retry_after_s,
        )


def may_fall_back(path: str, fields: Mapping[str, Any]) -> bool:
    """Return whether another model can answer a request to *path*: not where it means tokens of the first by number."""
    prompt = fields.get("prompt")
    while isinstance(prompt, list) and prompt:
        prompt = prompt[0]
    return path not in _OF_THE_MODEL and not isinstance(prompt, int) and not fields.get("logit_bias")
