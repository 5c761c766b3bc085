"""The exceptions of rbee.

* RbeeError          expected: has a code of `contracts.errors`, a message, details and a hint
  + ConfigError      an operator must change a file or a setting; has a file and a line

Any other exception is a bug: only the outermost middleware catches it, and answers with INTERNAL.
Code that distinguishes errors looks at `code`, never at the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rbee.contracts.errors import ERRORS, ErrorCode


class RbeeError(Exception):
    """An expected failure: what happened, to which thing, and what to do next.

    Args:
        code: the row of the error table.
        message: one or two sentences that name the thing and the reason.
        details: numbers and names for scripts; JSON values only.
        hint: the next step; the table's hint for the code where None.
        param: the request field that is wrong, if any.
        retry_after_s: seconds for Retry-After; the table's value where None.
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
        """Return the HTTP status; 500 for a code that should never cross HTTP."""
        return ERRORS[self.code].http_status or 500

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the JSON form, as `contracts.error_body.ErrorBody` describes it."""
        return {
            "error": {
                "code": self.code.value,
                "type": ERRORS[self.code].type,
                "message": self.message,
                "param": self.param,
                "details": self.details,
                "hint": self.hint,
                "request_id": request_id,
            }
        }

    @classmethod
    def from_body(cls, body: object) -> RbeeError | None:
        """Rebuild the error that a daemon sent; None if *body* is not an error body of rbee.

        Where `error` is a text, as Ollama's clients are told it, the rest lies beside it.
        """
        detail = body.get("error") if isinstance(body, dict) else None
        if isinstance(detail, str) and isinstance(body, dict):
            detail = {**body, "message": detail}
        if not isinstance(detail, dict):
            return None
        try:
            code = ErrorCode(str(detail.get("code")))
        except ValueError:
            return None
        details, hint, param = detail.get("details"), detail.get("hint"), detail.get("param")
        return cls(
            code,
            str(detail.get("message", "")),
            details=details if isinstance(details, dict) else None,
            hint=hint if isinstance(hint, str) and hint else None,
            param=param if isinstance(param, str) else None,
        )


@contextmanager
def collected(errors: list[ConfigError]) -> Iterator[None]:
    """Add a ConfigError that ends the context to *errors*, and go on after it."""
    try:
        yield
    except ConfigError as error:
        errors.append(error)


def name_node(hint: str, node: str) -> str:
    """Return a hint of the error table with the name of a machine in place of NODE."""
    return re.sub(r"\bNODE\b", node, hint)


class ConfigError(RbeeError):
    """A file or setting that an operator must change; `path` and `line` (from 1) say where, if known.

    `also` are the others that were found with it.
    """

    def __init__(self, reason: str, *, path: str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(ErrorCode.CONFIG_INVALID, where + reason, details={"file": path, "line": line})
        self.reason = reason
        self.path = path
        self.line = line
        self.also: tuple[ConfigError, ...] = ()

    @classmethod
    def of(cls, errors: Sequence[ConfigError]) -> ConfigError:
        """Return the first of some errors, by file and line, with all others, and theirs, as its `also`."""
        every = [each for error in errors for each in (error, *error.also)]
        first, *rest = sorted(every, key=lambda error: (error.path or "", error.line or 0))
        first.also = tuple(rest)
        first.details["also"] = [
            {"message": error.message, "file": error.path, "line": error.line} for error in first.also
        ]
        return first
