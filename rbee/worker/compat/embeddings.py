"""OpenAI's embeddings."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import EmbeddingRequest
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.generation_request import GenerationRequest


def build_texts(
    given: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]], field: str = "input"
) -> list[GenerationRequest]:
    """Return the texts of *field* as generation requests, of which only the prompt counts.

    Raises RbeeError INVALID_REQUEST.
    """
    items: Sequence[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    sampling = Sampling()
    requests = []
    for number, item in enumerate(items):
        param = field if len(items) == 1 else f"{field}.{number}"
        if not item:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"{param} is empty.", param=param)
        if isinstance(item, str):
            requests.append(GenerationRequest(sampling, text=item, plain=True, param=param))
        else:
            requests.append(GenerationRequest(sampling, tokens=tuple(item), param=param))
    return requests


def render_body(request: EmbeddingRequest, model: str, vectors: Sequence[Sequence[float]], tokens: int) -> bytes:
    """Render the response. Raises RbeeError INVALID_REQUEST for more dimensions than the model has."""
    data = []
    for number, cut in enumerate(with_dimensions(vectors, request.dimensions)):
        value: object = cut
        if request.encoding_format == "base64":
            value = base64.b64encode(struct.pack(f"<{len(cut)}f", *cut)).decode()
        data.append({"object": "embedding", "index": number, "embedding": value})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": model, "usage": usage}).encode()


def with_dimensions(vectors: Sequence[Sequence[float]], size: int | None) -> Sequence[Sequence[float]]:
    """Return embeddings of so many dimensions, None for all.

    Raises RbeeError INVALID_REQUEST for more than the model has.
    """
    if size is None or not vectors:
        return vectors
    if size > len(vectors[0]):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{size} dimensions were requested; the model's embeddings have {len(vectors[0])}.",
            param="dimensions",
        )
    return [_truncate(vector, size) for vector in vectors]


def _truncate(vector: Sequence[float], size: int) -> list[float]:
    """Cut an embedding to its first dimensions and normalise it to length 1."""
    cut = vector[:size]
    length = math.sqrt(sum(value * value for value in cut)) or 1.0
    return [value / length for value in cut]
