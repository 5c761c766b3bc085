"""What can go wrong, as types.

* RbeeError          expected: has a code of `contracts.errors`, a message, details and a hint
  + ConfigError      an operator must change a file or a setting; carries file and line

Anything else is a bug: it is not caught below the edge, where it becomes INTERNAL.
Code that must tell errors apart looks at `code`, never at the text.
"""

from __future__ import annotations

from typing import Any

from rbee.contracts.errors import ERRORS, ErrorBody, ErrorCode, ErrorDetail


class RbeeError(Exception):
    """An expected failure: what happened, to which thing, and what to do next.

    Args:
        code: which row of the error table.
        message: one or two sentences that name the thing and the reason.
        details: figures and names for scripts; JSON values only.
        hint: the next step; the table's hint for the code where None.
        param: the request field that is to blame, if one is.
        retry_after_s: seconds for Retry-After; the table's where None.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        hint: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        spec = ERRORS[code]
        self.code = code
        self.message = message
        self.details = details or {}
        self.hint = spec.hint if hint is None else hint
        self.param = param
        self.retry_after_s = spec.retry_after_s if retry_after_s is None else retry_after_s

    @property
    def http_status(self) -> int:
        """Give the HTTP status; 500 for a code that should never cross HTTP."""
        return ERRORS[self.code].http_status or 500

    def body(self, request_id: str | None = None) -> ErrorBody:
        """Give the wire form."""
        return ErrorBody(
            error=ErrorDetail(
                code=self.code,
                type=ERRORS[self.code].type,
                message=self.message,
                param=self.param,
                details=self.details,
                hint=self.hint,
                request_id=request_id,
            )
        )

    @classmethod
    def from_body(cls, body: ErrorBody) -> RbeeError:
        """Rebuild the error that a daemon sent."""
        detail = body.error
        return cls(detail.code, detail.message, details=detail.details, hint=detail.hint, param=detail.param)


class ConfigError(RbeeError):
    """A file or setting that an operator must change; `path` and `line` (from 1) say where, if known."""

    def __init__(self, message: str, *, path: str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(ErrorCode.CONFIG_INVALID, where + message, details={"file": path, "line": line})
        self.path = path
        self.line = line
