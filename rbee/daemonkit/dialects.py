"""The routes of OpenAI- and Anthropic-compatible clients, and the error event of a stream on each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

from rbee.contracts.anthropic import CountTokensRequest, MessagesRequest
from rbee.contracts.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.rerank import RerankRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.daemonkit.errors import ANTHROPIC_ROUTES, error_body
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError


class Dialect(StrEnum):
    """The stream format of a route."""

    OWN = "own"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class CompatRoute:
    """A route that queen and worker have for OpenAI- and Anthropic-compatible clients."""

    path: str
    summary: str
    dialect: Dialect
    body: type[BaseModel]


COMPAT_ROUTES: Final = (
    CompatRoute("/v1/chat/completions", "Create a chat completion (OpenAI)", Dialect.OPENAI, ChatRequest),
    CompatRoute(
        "/v1/completions",
        "Complete a text (OpenAI)",
        Dialect.OPENAI,
        CompletionRequest,
    ),
    CompatRoute("/v1/embeddings", "Create embeddings (OpenAI)", Dialect.OPENAI, EmbeddingRequest),
    CompatRoute(
        "/v1/rerank",
        "Rerank documents by relevance to a query (Jina, Cohere)",
        Dialect.OPENAI,
        RerankRequest,
    ),
    CompatRoute(
        "/v1/responses",
        "Create a response (OpenAI)",
        Dialect.RESPONSES,
        ResponsesRequest,
    ),
    CompatRoute("/v1/messages", "Create a message (Anthropic)", Dialect.ANTHROPIC, MessagesRequest),
    CompatRoute(
        "/v1/messages/count_tokens",
        "Count the tokens of a message (Anthropic)",
        Dialect.ANTHROPIC,
        CountTokensRequest,
    ),
)


def encode_failure(dialect: Dialect, error: RbeeError, request_id: str | None, *, number: int = 0) -> bytes:
    """Encode the event that ends a stream which failed after its start; *number* counts the events of a response."""
    body = error.body(request_id)
    if dialect is Dialect.OPENAI:
        return encode(body)
    if dialect is Dialect.ANTHROPIC:
        return encode(error_body(error, request_id, ANTHROPIC_ROUTES), "error")
    if dialect is Dialect.RESPONSES:
        event: dict[str, Any] = {"type": "error", "code": error.code.value, "message": error.message}
        return encode({**event, "param": error.param, "sequence_number": number, **body}, "error")
    return encode(body, "error")
