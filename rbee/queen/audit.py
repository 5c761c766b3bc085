"""Write down who did what: every action of an operator, and every refusal for lack of a key or a right.

JSON lines in a file of their own, mode 0600, rotated as it is written. Refusals are limited, so that nobody who has no
key, or one that may do little, can fill the disk or push the actions out of the file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Scope

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.observe.throttle import LogThrottle

if TYPE_CHECKING:
    from logging.handlers import RotatingFileHandler

log = logging.getLogger(__name__)
MAX_BYTES: Final = 10_000_000
COPIES: Final = 5
MAX_TEXT: Final = 256
REFUSALS_A_MINUTE: Final = 20
_MINUTE_S: Final = 60.0

_REFUSALS: Final = (ErrorCode.MISSING_API_KEY, ErrorCode.INVALID_API_KEY, ErrorCode.FORBIDDEN)
_READING: Final = ("GET", "HEAD", "OPTIONS")
# What an action is about; other fields may be long, or secret.
_SUBJECTS: Final = (
    *("name", "node", "node_name", "model", "worker_id", "backend", "device", "hives", "when_idle", "replace"),
    *("for_s", "drain_s"),
    *("rights", "models", "max_priority", "max_tasks", "tokens_per_day", "expires_unix"),
)
_QUERY: Final = re.compile(r"\?[^\s'\"]*")


class Audit:
    """The audit file.

    Args:
        inference: whether a path is inference, which is no operator's action.
        now: returns seconds since the epoch.
    """

    def __init__(self, path: Path, *, inference: Callable[[str], bool], now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._inference = inference
        self._now = now
        # For each client, and one for all without a key.
        self._refusals: dict[str, LogThrottle] = {}

    def note(self, scope: Scope, status: int) -> None:
        """Write down a request that has ended, if it was an action or was refused."""
        state: dict[str, Any] = scope["state"]
        error: RbeeError | None = state.get("error")
        left_out = 0
        if error is not None and error.code in _REFUSALS:
            who = state.get("client") or str(error.details.get("client", ""))
            throttle = self._refusals.get(who)
            if throttle is None:
                throttle = self._refusals[who] = LogThrottle(REFUSALS_A_MINUTE, _MINUTE_S, clock=self._now)
            left_out = throttle.take_left_out()
            if not throttle.admit():
                return
        # What an action is about is noted, by whichever route it came.
        elif (
            scope["method"] in _READING
            or (self._inference(scope["path"]) and "what" not in state)
            or not state.get("operates")
        ):
            return
        else:
            who = state["client"]
        self._write(_line(scope, who, status, error, left_out, self._now()))

    def close(self) -> None:
        """Close the file, if anything was written."""
        if "_file" in self.__dict__:
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.handle(logging.makeLogRecord({"msg": json.dumps(line, ensure_ascii=False)}))

    @cached_property
    def _file(self) -> RotatingFileHandler:
        from logging.handlers import RotatingFileHandler  # imports sockets and pickles, which no cold start needs

        class PrivateFile(RotatingFileHandler):
            def _open(self) -> Any:
                return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_private)

            def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
                reason = str(sys.exc_info()[1])
                log.error("audit not written", extra={"fields": {"reason": reason, "line": record.msg}})

        return PrivateFile(
            self._path, maxBytes=MAX_BYTES, backupCount=COPIES, encoding="utf-8", errors="replace", delay=True
        )


def subject(body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    """Return what an action is about: the fields of its body and query that name things, without secrets."""
    try:
        given = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        given = {}
    fields = {**query, **(given if isinstance(given, dict) else {})}
    return {name: _shown(fields[name]) for name in _SUBJECTS if name in fields}


def _line(scope: Scope, who: str, status: int, error: RbeeError | None, left_out: int, now: float) -> dict[str, Any]:
    state: dict[str, Any] = scope["state"]
    host = (scope.get("client") or ("",))[0]
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "who": who or None,  # nobody: no key, or none that is known
        "from": host,
        "action": f"{scope['method']} {scope['path']}"[:MAX_TEXT],
        "what": state.get("what", {}),
        "result": "refused" if error and error.code in _REFUSALS else "failed" if error or status >= 400 else "done",
        "status": status,
        "request_id": state.get("request_id"),
    }
    if error is not None:
        line |= {"code": error.code.value, "reason": _shown(error.message)}
    if left_out:
        line["left_out_before"] = left_out
    return line


def _shown(value: object) -> object:
    """Return a value short, and without the queries of addresses, which may be signed."""
    if isinstance(value, str):
        return _QUERY.sub("?...", value)[:MAX_TEXT]
    if isinstance(value, list):
        return [_shown(one) for one in value[:20]]
    return value if isinstance(value, int | float | bool) or value is None else "..."


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
