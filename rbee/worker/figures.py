"""The worker's figures for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.worker.generation import Ending, Generation

if TYPE_CHECKING:
    from rbee.worker.service import Service


def ended(generation: Generation, end: Ending | RbeeError, *, now: float) -> None:
    """Count a generation that is over; *now* is of the clock that its times are of."""
    metrics.WORKER_PROMPT_TOKENS.add(len(generation.prompt))
    metrics.WORKER_CACHED_TOKENS.add(generation.cached_tokens)
    metrics.WORKER_TOKENS.add(generation.generated)
    metrics.WORKER_DRAFTED.add(generation.drafted)
    metrics.WORKER_ACCEPTED.add(generation.accepted)
    metrics.WORKER_GENERATIONS.add(1, "error" if isinstance(end, RbeeError) else end.finish_reason)
    if generation.cancelled_at is not None:
        metrics.WORKER_CANCEL.observe(now - generation.cancelled_at)
    if generation.generated and generation.first_at is not None:
        metrics.WORKER_FIRST_TOKEN.observe(generation.first_at - generation.begun_at)
        if generation.generated > 1:
            metrics.WORKER_PER_TOKEN.observe((now - generation.first_at) / (generation.generated - 1))


def figures(service: Service, memory_bytes: int) -> tuple[bytes, str]:
    """Give the text of all figures and its media type."""
    from rbee.daemonkit.prometheus import exposition  # nobody waits for it at the start

    status = service.slots()
    return exposition(
        "worker",
        {
            metrics.WORKER_SLOTS: {
                ("yes",): status.slots_available,
                ("no",): status.slots_total - status.slots_available,
            },
            metrics.WORKER_LOAD: service.load_s,
            metrics.WORKER_MEMORY: memory_bytes,
            metrics.WORKER_CACHE: sum(slot.cached_tokens for slot in status.slots),
        },
    )
