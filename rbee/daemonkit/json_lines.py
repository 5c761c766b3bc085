"""A response of JSON objects, one a line, as Ollama's clients read them."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

from pydantic import BaseModel

from rbee.contracts.ollama import timestamp
from rbee.daemonkit.dialects import Dialect, encode_comment, encode_failure
from rbee.daemonkit.sse import EventStream
from rbee.errors import RbeeError


class JsonLines(EventStream):
    """A response that sends each encoded line at once; see `EventStream`."""

    media_type = Dialect.OLLAMA.media_type
    ping = encode_comment(Dialect.OLLAMA, "")

    def encode_error(self, error: RbeeError, request_id: str | None) -> bytes:
        """Encode the line that ends the stream where it fails."""
        return encode_failure(Dialect.OLLAMA, error, request_id)


def load_line(path: str, model: str, reason: Literal["load", "unload"]) -> bytes:
    """Encode the answer to a request of *path* without a prompt, which only loads a model, or unloads it."""
    empty: dict[str, Any] = {"response": ""}
    if path == "/api/chat":
        empty = {"message": {"role": "assistant", "content": ""}}
    # It begins as the last line of a stream does.
    body = {"done": True, "model": model, "created_at": timestamp(time.time()), **empty, "done_reason": reason}
    return json.dumps(body).encode() + b"\n"


def encode_line(data: BaseModel) -> bytes:
    """Encode one line."""
    return data.model_dump_json(exclude_none=True).encode() + b"\n"
