"""The error body: one shape on every route of every daemon, a superset of OpenAI's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rbee.contracts.errors import ErrorCode


class ErrorDetail(BaseModel):
    """The content of `error`."""

    code: ErrorCode
    type: str
    message: str
    param: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    hint: str = ""
    request_id: str | None = None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail
