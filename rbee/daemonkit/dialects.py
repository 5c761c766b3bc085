"""The routes of OpenAI- and Anthropic-compatible clients, and the error event of a stream on each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

from rbee.contracts.anthropic import CountTokensRequest, MessagesRequest
from rbee.contracts.errors import ERRORS
from rbee.contracts.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.rerank import RerankRequest
from rbee.contracts.responses import ResponsesRequest
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

# The types that Anthropic's clients distinguish; all others are `api_error`.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def encode_failure(dialect: Dialect, error: RbeeError, request_id: str | None) -> bytes:
    """Encode the event that ends a stream which failed after its start."""
    body = error.body(request_id)
    if dialect is Dialect.OPENAI:
        return encode(body)
    if dialect is Dialect.ANTHROPIC:
        return encode(anthropic_body(error, request_id), "error")
    if dialect is Dialect.RESPONSES:
        event: dict[str, Any] = {"type": "error", "code": error.code.value, "message": error.message}
        return encode({**event, "param": error.param, "sequence_number": 0, **body}, "error")
    return encode(body, "error")


def anthropic_body(error: RbeeError, request_id: str | None) -> dict[str, Any]:
    """Return the error body with the error types of Anthropic's API."""
    body = error.body(request_id)
    kind = _ANTHROPIC_TYPES.get(error.http_status, "api_error")
    return {"type": "error", **body, "error": {**body["error"], "type": kind, "rbee_type": ERRORS[error.code].type}}
