"""OpenAI's embeddings."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Sequence

from rbee.contracts.errors import ErrorCode
from rbee.contracts.openai import EmbeddingRequest
from rbee.contracts.tasks import Sampling
from rbee.errors import RbeeError
from rbee.worker.generation_request import GenerationRequest


def build_texts(request: EmbeddingRequest) -> list[GenerationRequest]:
    """Return the texts as generation requests, of which only the prompt counts. Raises RbeeError INVALID_REQUEST."""
    given = request.input
    items: Sequence[str | list[int]]
    items = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    sampling = Sampling()
    requests = []
    for number, item in enumerate(items):
        param = "input" if len(items) == 1 else f"input.{number}"
        if not item:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"{param} is empty.", param=param)
        if isinstance(item, str):
            requests.append(GenerationRequest(sampling, text=item, plain=True, param=param))
        else:
            requests.append(GenerationRequest(sampling, tokens=tuple(item), param=param))
    return requests


def render_body(request: EmbeddingRequest, model: str, vectors: Sequence[Sequence[float]], tokens: int) -> bytes:
    """Render the response. Raises RbeeError INVALID_REQUEST for more dimensions than the model has."""
    size = request.dimensions
    if size is not None and vectors and size > len(vectors[0]):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{size} dimensions were requested; the model's embeddings have {len(vectors[0])}.",
            param="dimensions",
        )
    data = []
    for number, vector in enumerate(vectors):
        cut = vector if size is None else _truncate(vector, size)
        value: object = cut
        if request.encoding_format == "base64":
            value = base64.b64encode(struct.pack(f"<{len(cut)}f", *cut)).decode()
        data.append({"object": "embedding", "index": number, "embedding": value})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": model, "usage": usage}).encode()


def _truncate(vector: Sequence[float], size: int) -> list[float]:
    """Cut an embedding to its first dimensions and normalise it to length 1."""
    cut = vector[:size]
    length = math.sqrt(sum(value * value for value in cut)) or 1.0
    return [value / length for value in cut]
