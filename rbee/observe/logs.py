"""Configure a daemon's log: one line per event on standard error, JSON when piped, without secrets.

Standard logging with one formatter: importing structlog would take as long as all of rbee's shared modules.
Extra fields are passed as `log.info("worker started", extra={"fields": {"pid": 12}})`.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from rbee.observe.log_file import LogFile
from rbee.observe.redaction import Redactor
from rbee.observe.trace import trace_id

request_id: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar("request_id", default=None)


class LineFormatter(logging.Formatter):
    """Format a record as one JSON line, or as one plain line for a terminal."""

    def __init__(self, daemon: str, redactor: Redactor, *, as_json: bool) -> None:
        super().__init__()
        self._daemon = daemon
        self._redactor = redactor
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the redacted line."""
        fields: dict[str, Any] = getattr(record, "fields", None) or {}
        current = request_id.get()
        if current is not None:
            fields = {"request_id": current, **fields}
        trace = trace_id.get()
        if trace is not None:
            fields = {"trace_id": trace, **fields}
        traceback_text = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        if self._as_json:
            entry: dict[str, Any] = {
                "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
                "level": record.levelname.lower(),
                "daemon": self._daemon,
                "logger": record.name,
                "message": record.getMessage(),
                **fields,
            }
            if traceback_text:
                entry["traceback"] = traceback_text
            return self._redactor.clean(json.dumps(entry, ensure_ascii=False, default=str))
        tail = "".join(f" {key}={value}" for key, value in fields.items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()}{tail}"
        return self._redactor.clean(line + ("\n" + traceback_text if traceback_text else ""))


def configure(
    daemon: str,
    *,
    level: str = "info",
    secrets: tuple[str, ...] = (),
    file: Path | None = None,
    max_bytes: int = 32_000_000,
) -> Redactor:
    """Configure one handler for all logging of this process; return the redactor, for keys created later.

    With *file* it is written there and rotated, else to standard error. Raises OSError where it cannot be opened.
    """
    redactor = Redactor(secrets)
    handler = logging.StreamHandler(sys.stderr) if file is None else LogFile(file, max_bytes)
    handler.setFormatter(LineFormatter(daemon, redactor, as_json=not sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "websockets", "asyncio", "huggingface_hub", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    return redactor
