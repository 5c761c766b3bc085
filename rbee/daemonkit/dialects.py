"""The routes of compatible clients (OpenAI, Anthropic, Ollama, llama-server), and how a stream is written on each."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

from rbee.daemonkit.errors import ANTHROPIC_ROUTES, OLLAMA_ROUTES, error_body
from rbee.daemonkit.sse import comment, encode
from rbee.errors import RbeeError


class Dialect(StrEnum):
    """The stream format of a route."""

    OWN = "own"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"
    OLLAMA = "ollama"

    @property
    def media_type(self) -> str:
        """Return the content type of a stream."""
        return "application/x-ndjson" if self is Dialect.OLLAMA else "text/event-stream; charset=utf-8"

    @property
    def error_route(self) -> str:
        """Return a path on which errors have the form of the dialect (`errors.error_body`)."""
        return {Dialect.ANTHROPIC: ANTHROPIC_ROUTES, Dialect.OLLAMA: OLLAMA_ROUTES}.get(self, "")


@dataclass(frozen=True, slots=True)
class CompatRoute:
    """A route that queen and worker have for compatible clients.

    `streams` is whether an answer is a stream where the request does not say; None where it never is. `body` is the
    request's module of `rbee.contracts` and its name: no start waits for its import.
    """

    path: str
    summary: str
    dialect: Dialect
    body: str
    streams: bool | None = False

    @property
    def request(self) -> type[BaseModel]:
        """Return the model of the request."""
        module, name = self.body.split(".")
        model: type[BaseModel] = getattr(importlib.import_module(f"rbee.contracts.{module}"), name)
        return model


_EMPTY_RESPONSE: Final = {
    "object": "response",
    "created_at": 0,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
}
LATEST: Final = ":latest"
"""What Ollama's clients may add to the name of a model."""

COMPAT_ROUTES: Final = (
    CompatRoute("/v1/chat/completions", "Create a chat completion (OpenAI)", Dialect.OPENAI, "openai.ChatRequest"),
    CompatRoute(
        "/v1/completions",
        "Complete a text (OpenAI)",
        Dialect.OPENAI,
        "openai.CompletionRequest",
    ),
    CompatRoute(
        "/v1/embeddings", "Create embeddings (OpenAI)", Dialect.OPENAI, "openai.EmbeddingRequest", streams=None
    ),
    CompatRoute(
        "/v1/rerank",
        "Rerank documents by relevance to a query (Jina, Cohere)",
        Dialect.OPENAI,
        "rerank.RerankRequest",
        streams=None,
    ),
    CompatRoute(
        "/v1/responses",
        "Create a response (OpenAI)",
        Dialect.RESPONSES,
        "responses.ResponsesRequest",
    ),
    CompatRoute("/v1/messages", "Create a message (Anthropic)", Dialect.ANTHROPIC, "anthropic.MessagesRequest"),
    CompatRoute(
        "/v1/messages/count_tokens",
        "Count the tokens of a message (Anthropic)",
        Dialect.ANTHROPIC,
        "anthropic.CountTokensRequest",
        streams=None,
    ),
    CompatRoute("/api/chat", "Answer a chat (Ollama)", Dialect.OLLAMA, "ollama.OllamaChatRequest", streams=True),
    CompatRoute("/api/generate", "Answer a prompt (Ollama)", Dialect.OLLAMA, "ollama.GenerateRequest", streams=True),
    CompatRoute("/api/embed", "Embed texts (Ollama)", Dialect.OLLAMA, "ollama.EmbedRequest", streams=None),
    CompatRoute(
        "/api/embeddings", "Embed one text (Ollama)", Dialect.OLLAMA, "ollama.PromptEmbedRequest", streams=None
    ),
    CompatRoute(
        "/tokenize", "Tokenize a text (llama-server)", Dialect.OPENAI, "llama_server.TokenizeRequest", streams=None
    ),
    CompatRoute(
        "/detokenize",
        "Write tokens as text (llama-server)",
        Dialect.OPENAI,
        "llama_server.DetokenizeRequest",
        streams=None,
    ),
    CompatRoute(
        "/apply-template",
        "Render a chat with the model's template (llama-server)",
        Dialect.OPENAI,
        "openai.ChatRequest",
        streams=None,
    ),
)


def encode_failure(
    dialect: Dialect,
    error: RbeeError,
    request_id: str | None,
    *,
    number: int = 0,
    response: dict[str, Any] | None = None,
) -> bytes:
    """Encode what ends a stream which failed after its start.

    Args:
        number: of the next event of a response.
        response: as far as it came, for the event that tells of its failure.
    """
    body = error.body(request_id)
    if dialect is Dialect.OPENAI:
        return encode(body)
    if dialect is Dialect.OLLAMA:
        return json.dumps(error_body(error, request_id, OLLAMA_ROUTES)).encode() + b"\n"
    if dialect is Dialect.ANTHROPIC:
        return encode(error_body(error, request_id, ANTHROPIC_ROUTES), "error")
    if dialect is Dialect.RESPONSES:
        told = {"code": error.code.value, "message": error.message}
        failed = {"id": f"resp_{request_id}", **(response or _EMPTY_RESPONSE), "status": "failed", "error": told}
        kind = "response.failed"
        first = encode({"type": kind, "sequence_number": number, "response": failed}, kind)
        event = {"type": "error", **told, "param": error.param, "sequence_number": number + 1, **body}
        return first + encode(event, "error")
    return encode(body, "error")


def encode_comment(dialect: Dialect, text: str) -> bytes:
    """Encode what keeps a silent stream alive, and its client ignores: between lines of JSON, a space."""
    return b" " if dialect is Dialect.OLLAMA else comment(text)
