"""Identifiers, and the names that both sides of a connection share."""

from __future__ import annotations

import os
from typing import Final

API_VERSION: Final = "v1"
LOCALHOST_NODE: Final = "localhost"
REQUEST_ID_HEADER: Final = "X-Request-Id"
SSE_DONE: Final = "[DONE]"
IGNORED_HEADER: Final = "X-Rbee-Ignored"
"""What a request has and its answer does not heed: tools that are no functions, keywords of a schema."""
FALLBACK_HEADER: Final = "X-Rbee-Fallback"
"""The declared model that is used in place of the one that was asked for, which cannot be served now."""
ROUTED_HEADER: Final = "X-Rbee-Model"  # from the queen to a worker: the name by which the client asked for the model
USAGE_COMMENT: Final = "usage"
"""In an answer from a worker to its queen: tokens of the prompt, of these cached, of the answer; microseconds of the
engine."""
USAGE_HEADER: Final = "X-Rbee-Usage"  # the same counts, of a request that a worker was told to cancel
PROGRESS_COMMENT: Final = "progress"  # in a stream from a worker: it has nothing to send, and works on the request
DEADLINE_HEADER: Final = "X-Rbee-Deadline"  # seconds left for a request
CLIENT_HEADER: Final = "X-Rbee-Client"  # from the queen to a worker: whose request it is, by an opaque id
MAX_CLIENT_CHARS: Final = 64


def new_id(prefix: str) -> str:
    """Return a new identifier such as `worker-3f9c2a7b51d0`: 48 random bits after *prefix*."""
    return f"{prefix}-{os.urandom(6).hex()}"
