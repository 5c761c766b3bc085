"""Follow one task from the request to its last token, and save the partial answer where it fails."""

from __future__ import annotations

import time
from typing import Any

from rbee.client.event import Event
from rbee.client.queen import QueenClient
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.ui.interrupts import Interrupted
from rbee.keeper.ui.output import Output
from rbee.keeper.ui.progress import ProgressPrinter

_CONNECTION_ERRORS = (ErrorCode.CONNECTION_TIMEOUT, ErrorCode.INVALID_RESPONSE)


class Inference:
    """One task as the keeper sees it."""

    def __init__(self, request: dict[str, Any], out: Output, paths: Paths) -> None:
        self._request = request
        self._out = out
        self._paths = paths
        self._pieces: list[str] = []
        self._task_id: str | None = None
        self._done: dict[str, Any] | None = None

    def run(self, queen: QueenClient) -> None:
        """Print the answer as it comes. Raises RbeeError, or Interrupted after the task was canceled."""
        try:
            with queen.task(self._request) as events, ProgressPrinter(self._out, as_events=self._out.json) as progress:
                try:
                    for event in events:
                        self._handle(event, progress)
                except Interrupted as interrupted:
                    progress.close()
                    self._out.end_line()
                    self._cancel(queen)
                    interrupted.reported = True
                    raise
            if self._done is None:
                raise RbeeError(
                    ErrorCode.INVALID_RESPONSE,
                    f"The stream from {queen.url} ended without 'done' and without an error.",
                    details={"url": queen.url},
                )
        except RbeeError as error:
            self._out.end_line()
            if not self._pieces:
                raise
            raise self._with_partial(error) from error
        self._out.end_line()
        self._print_summary(self._done)

    @property
    def node(self) -> str | None:
        """The machine that it must run on, if it matters."""
        node = self._request.get("node")
        return None if node is None else str(node)

    def say(self, human: str, action: str, emoji: str) -> None:
        """Print a line of the keeper's own narration."""
        ProgressPrinter(self._out, as_events=self._out.json).say(human, action, emoji)

    def may_retry(self, error: RbeeError, queen: QueenClient) -> bool:
        """Return whether the request may be sent to another queen after *error*: *queen* is stopping, or was lost.

        What the queen tells of a hive or a worker that is stopping or does not answer would be the same again, and
        once a part of the answer was printed nothing is sent again.
        """
        if self._pieces:
            return False
        if error.code in _CONNECTION_ERRORS:
            return str(error.details.get("url", "")).startswith(queen.url)
        return error.code is ErrorCode.DRAINING and queen.is_draining()

    def _handle(self, event: Event, progress: ProgressPrinter) -> None:
        if progress.handle(event):
            return
        if event.name == "message" and "token" in event.data:
            if not self._pieces:
                progress.close()
            self._pieces.append(str(event.data["token"]))
            if self._out.json:
                self._out.event("token", event.data)
            else:
                self._out.piece(self._pieces[-1])
            return
        if event.name == "message" and event.data.get("done") is True:
            self._done = event.data
        elif event.name == "task":
            self._task_id = str(event.data.get("task_id"))
        elif event.name == "placed":
            self._out.say(_where(event.data), "📍")
        if self._out.json:
            self._out.event("done" if event.data.get("done") is True else event.name, event.data)

    def _cancel(self, queen: QueenClient) -> None:
        if self._task_id is None:
            self._out.error(["Interrupted: the request was canceled before the queen accepted it."])
            return
        began = time.monotonic()
        try:
            queen.cancel(self._task_id)
        except RbeeError as error:
            self._out.error(
                [
                    f"Interrupted: the request was canceled, but that was not acknowledged: {error.message}",
                    "  Next: see whether its slot is free: rbee-keeper worker list",
                ]
            )
            return
        seconds = time.monotonic() - began
        self._out.error([f"Interrupted: the request was canceled; the queen acknowledged it after {seconds:.1f} s."])

    def _with_partial(self, error: RbeeError) -> RbeeError:
        """Save the partial answer, and name its file in the error."""
        received, asked = len(self._pieces), self._request.get("max_tokens")
        came = f"{received} of {asked} tokens came" if asked else f"{received} tokens came"
        details = {**error.details, "tokens_received": received}
        if asked:
            details["tokens_asked"] = asked
        file = self._paths.partial / f"{self._task_id or f'{time.time():.0f}'}.txt"
        try:
            self._paths.make(file.parent)
            file.write_text("".join(self._pieces), encoding="utf-8")
        except (OSError, RbeeError) as failure:
            self._out.warn(f"the partial answer could not be saved: {failure}")
            saved = "the partial answer could not be saved."
        else:
            details["partial_file"] = str(file)
            saved = f"the partial answer is in {file}"
        message = f"{error.message.rstrip('.')}. {came}; {saved}"
        return RbeeError(error.code, message, details=details, hint=error.hint, param=error.param)

    def _print_summary(self, done: dict[str, Any]) -> None:
        tokens, seconds = int(done.get("total_tokens", 0)), float(done.get("duration_ms", 0)) / 1000
        rate = f", {tokens / seconds:.0f} tokens/s" if tokens and seconds else ""
        why = " (--max-tokens reached)" if done.get("finish_reason") == "length" else ""
        self._out.say(f"{tokens} tokens in {seconds:.1f} s{rate}{why}", "🐝")


def _where(placed: dict[str, Any]) -> str:
    start = "Reusing" if placed.get("warm") else "Using"
    device = f"{placed.get('backend')}:{placed.get('device')}"
    if not placed.get("worker_id"):  # a client's key is not told where its request runs
        return f"{start} a worker ({device})"
    return f"{start} worker {placed['worker_id']} on {placed.get('node')} ({device})"
