#!/usr/bin/env python3
"""Stand in for a worker: the lifeline, the port and the health of one, without a model.

How it behaves is said by variables that the hive's environment passes on:
`STAND_IN_LOAD_S` (seconds to load), `STAND_IN_FAIL` (an error code to fail loading with), `STAND_IN_DEAF` (hangs up on
health checks), `STAND_IN_STALLED_S` (a busy slot without a token for so long), `STAND_IN_STUBBORN` (does not end
when it is told to), `STAND_IN_CRASH_S` (dies after so long), `STAND_IN_UNBOUND` (never binds its port),
`STAND_IN_PORT_LOST` (a file: made by the first worker, which finds its port taken),
`STAND_IN_CHILD` (a file: leaves a child, whose id it writes there), `STAND_IN_DEVICE_MB` (what it says to have taken).
`POST /busy` and `POST /free` take and give back its slots.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rbee import lifeline
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

OPTIONS = [
    "worker-id",
    "model-path",
    "model-ref",
    "backend",
    "device",
    "slots",
    "context-length",
    "host",
    "port",
    "callback-url",
    "cache-type",
    "speculate",
]
CHOICES = ["prompt-batch", "flash-attention", "threads", "chat-template-file"]
"""What a hive leaves to the worker unless it was told."""


class Worker:
    """What the worker says of itself."""

    def __init__(self, options: argparse.Namespace, hold: lifeline.OwnerLink) -> None:
        self.options = options
        self.hold = hold
        self.state = "loading"
        self.available = int(options.slots)
        self.stalled_s = float(os.environ.get("STAND_IN_STALLED_S", "0"))

    def tell(self) -> None:
        """Tell the hive the state."""
        total = int(self.options.slots)
        told = {"state": self.state, "slots_total": total, "slots_available": self.available}
        if taken := os.environ.get("STAND_IN_DEVICE_MB"):
            told["device_bytes"] = int(taken) * 1024 * 1024
        self.hold.tell(told)

    def health(self) -> dict[str, Any]:
        """Answer a health check."""
        return {
            "version": "0.1.0",
            "worker_id": self.options.worker_id,
            "state": self.state,
            "slots_total": int(self.options.slots),
            "slots_available": self.available,
            "model_ref": self.options.model_ref,
            "backend": self.options.backend,
            "device": int(self.options.device),
            "stalled_s": self.stalled_s if self.available < int(self.options.slots) else 0.0,
        }

    def occupy(self, available: int) -> None:
        """Have this many slots free."""
        self.available = available
        self.state = "idle" if available else "busy"
        self.tell()


class Handler(BaseHTTPRequestHandler):
    worker: Worker
    stopping: threading.Event

    def do_GET(self) -> None:
        if os.environ.get("STAND_IN_DEAF") and self.path == "/v1/health":
            self.close_connection = True
        elif self.path == "/v1/loading/progress":
            step = {"stage": "loading_to_ram", "layers_loaded": 28, "layers_total": 32}
            self._send(b"data: " + json.dumps(step).encode() + b"\n\n", "text/event-stream")
        else:
            self._send(json.dumps(self.worker.health()).encode(), "application/json")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path == "/v1/admin/shutdown":
            say(f"told to end: {self.rfile.read(length).decode()}")
            if not os.environ.get("STAND_IN_STUBBORN"):
                self.stopping.set()
        else:
            self.worker.occupy(0 if self.path == "/busy" else int(self.worker.options.slots))
        self._send(b"{}", "application/json")

    def _send(self, body: bytes, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
        """Keep the log for what tests look for."""


def say(line: str) -> None:
    """Write a line to the worker's log."""
    sys.stderr.write(line + "\n")


def call_back(options: argparse.Namespace, port: int) -> None:
    """Report that the port is bound, with the worker's own key."""
    report = {
        "worker_id": options.worker_id,
        "url": f"http://{options.host}:{port}",
        "model_ref": options.model_ref,
        "backend": options.backend,
        "device": int(options.device),
    }
    request = urllib.request.Request(options.callback_url, json.dumps(report).encode(), method="POST")
    request.add_header("Authorization", f"Bearer {os.environ['RBEE_WORKER_API_KEY']}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as response:
        say(f"callback: {response.read().decode()}")


def main() -> None:
    """Live as a worker does."""
    hold = lifeline.attach()
    parser = argparse.ArgumentParser()
    for name in OPTIONS:
        parser.add_argument(f"--{name}", required=True)
    for name in CHOICES:
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    stopping = Handler.stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if os.environ.get("STAND_IN_STUBBORN") else stopping.set())
    say("stand-in worker starting")
    if os.environ.get("STAND_IN_UNBOUND"):
        stopping.wait(600)
    Handler.worker = worker = Worker(options, hold)
    once = os.environ.get("STAND_IN_PORT_LOST")
    try:
        if once and not Path(once).exists():
            Path(once).touch()
            raise OSError("somebody was faster")
        server = ThreadingHTTPServer((options.host, int(options.port)), Handler)
    except OSError as error:
        hold.tell(RbeeError(ErrorCode.PORT_IN_USE, str(error)).body())
        sys.exit(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hold.tell({"port": server.server_port, "pid": os.getpid()})
    call_back(options, server.server_port)
    if file := os.environ.get("STAND_IN_CHILD"):
        child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdin=subprocess.DEVNULL)
        Path(file).write_text(str(child.pid))
    stopping.wait(float(os.environ.get("STAND_IN_LOAD_S", "0")))
    if code := os.environ.get("STAND_IN_FAIL"):
        say("the model cannot be loaded")
        hold.tell(RbeeError(ErrorCode(code), "The stand-in was told to fail.").body())
        sys.exit(1)
    worker.occupy(worker.available)
    crash_s = os.environ.get("STAND_IN_CRASH_S")
    if crash_s and not stopping.wait(float(crash_s)):
        say("about to crash")
        os.kill(os.getpid(), signal.SIGSEGV)
    stopping.wait()
    say("stand-in worker ends")
    os._exit(0)


if __name__ == "__main__":
    main()
