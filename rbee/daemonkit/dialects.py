"""The interfaces of other people's clients: their routes, and how a stream on each of them says that it broke."""

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
    """Who speaks on a route, by the marks of its streams."""

    OWN = "own"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class CompatRoute:
    """A route that queen and worker have for other people's clients."""

    path: str
    summary: str
    dialect: Dialect
    body: type[BaseModel]


COMPAT_ROUTES: Final = (
    CompatRoute("/v1/chat/completions", "Chat, as with OpenAI", Dialect.OPENAI, ChatRequest),
    CompatRoute(
        "/v1/completions",
        "Continue a text, as with OpenAI",
        Dialect.OPENAI,
        CompletionRequest,
    ),
    CompatRoute("/v1/embeddings", "Embed texts, as with OpenAI", Dialect.OPENAI, EmbeddingRequest),
    CompatRoute(
        "/v1/rerank",
        "Sort documents by a query, as with Jina or Cohere",
        Dialect.OPENAI,
        RerankRequest,
    ),
    CompatRoute(
        "/v1/responses",
        "Respond, as with OpenAI",
        Dialect.RESPONSES,
        ResponsesRequest,
    ),
    CompatRoute("/v1/messages", "Chat, as with Anthropic", Dialect.ANTHROPIC, MessagesRequest),
    CompatRoute(
        "/v1/messages/count_tokens",
        "Count tokens, as with Anthropic",
        Dialect.ANTHROPIC,
        CountTokensRequest,
    ),
)

# What Anthropic's clients switch on; everything else is theirs to call an API error.
_ANTHROPIC_TYPES = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}


def encode_failure(dialect: Dialect, error: RbeeError, request_id: str | None) -> bytes:
    """Write the event that ends a stream which failed after it began."""
    body = error.body(request_id)
    if dialect is Dialect.OPENAI:
        return encode(body)
    if dialect is Dialect.ANTHROPIC:
        return encode(anthropic_body(error, request_id), "error")
    if dialect is Dialect.RESPONSES:
        told: dict[str, Any] = {"type": "error", "code": error.code.value, "message": error.message}
        return encode({**told, "param": error.param, "sequence_number": 0, **body}, "error")
    return encode(body, "error")


def anthropic_body(error: RbeeError, request_id: str | None) -> dict[str, Any]:
    """Return our error body as Anthropic's clients read it: the same, with their names of types."""
    body = error.body(request_id)
    kind = _ANTHROPIC_TYPES.get(error.http_status, "api_error")
    return {"type": "error", **body, "error": {**body["error"], "type": kind, "rbee_type": ERRORS[error.code].type}}
