"""Report to the hive that the worker's port is bound."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from rbee.client.blocking import BlockingClient
from rbee.contracts.workers import ReadyReport
from rbee.errors import RbeeError

log = logging.getLogger(__name__)


async def report_ready(url: str, key: str, report: ReadyReport) -> None:
    """Send the report. A failure is logged and not retried: a hive that needs the report ends the worker."""
    try:
        await asyncio.to_thread(_send, url, key, report)
    except RbeeError as error:
        log.error("the hive did not accept the ready report", extra={"fields": {"reason": error.message}})


def _send(url: str, key: str, report: ReadyReport) -> None:
    parts = urlsplit(url)
    client = BlockingClient("rbee-hive", f"{parts.scheme}://{parts.netloc}", key)
    client.json("POST", parts.path, body=report.model_dump(mode="json"))
