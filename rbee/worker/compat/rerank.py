"""Reranking: documents sorted by how well they answer a query."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rbee.contracts.rerank import RerankRequest
from rbee.contracts.tasks import Sampling
from rbee.worker.generation_request import GenerationRequest


def build_pairs(request: RerankRequest) -> list[GenerationRequest]:
    """Return each document with the query as a generation request, of which only these two count."""
    sampling = Sampling()
    return [
        GenerationRequest(sampling, text=text, query=request.query, param=f"documents.{number}")
        for number, text in enumerate(request.texts)
    ]


def render_body(
    request: RerankRequest, request_id: str, model: str, vectors: Sequence[Sequence[float]], tokens: int
) -> bytes:
    """Render the response: the best document first, equally good ones in the order of the request.

    Args:
        vectors: one number for each document in their order: its relevance, from 0 to 1.
        tokens: number of tokens in all pairs.
    """
    relevances = [relevance for (relevance,) in vectors]
    order = sorted(range(len(relevances)), key=lambda number: -relevances[number])
    texts = request.texts
    results: list[dict[str, Any]] = []
    for number in order[: request.top_n]:
        document = {"document": {"text": texts[number]}} if request.return_documents else {}
        results.append({"index": number, "relevance_score": relevances[number], **document})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"id": f"rerank-{request_id}", "model": model, "results": results, "usage": usage}).encode()
