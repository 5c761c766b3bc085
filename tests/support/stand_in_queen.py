"""Stand in for a queen: an HTTP server in this process that streams what a test tells it to.

    with StandInQueen() as queen:
        queen.stream("POST", "/v2/tasks", event("token"...), hang=True)
        ...
        assert queen.seen("DELETE", "/v2/tasks/task-1")

It is for what real daemons do not do on demand: break off in mid-stream, fall silent, drain, speak nonsense.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from rbee import __version__


@dataclass(slots=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class _Answer:
    status: int = 200
    body: Any = None
    events: list[bytes] = field(default_factory=list)
    raw: bytes | None = None
    hang: bool = False


def event(data: dict[str, Any] | str, name: str | None = None) -> bytes:
    """Write one event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def tokens(*texts: str) -> list[bytes]:
    """Write the events of an answer's pieces."""
    return [event({"token": text, "index": index}) for index, text in enumerate(texts)]


def done(total: int, reason: str = "stop") -> list[bytes]:
    """Write the good end of a stream."""
    return [
        event({"done": True, "total_tokens": total, "duration_ms": 100, "finish_reason": reason}),
        event("[DONE]"),
    ]


def refusal(code: str, message: str, **more: Any) -> dict[str, Any]:
    """Write an error body."""
    return {"error": {"code": code, "type": "t", "message": message, "param": None, "details": {}, "hint": "", **more}}


class StandInQueen:
    """A queen on a free port of 127.0.0.1, from `with` to the end of it."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], list[_Answer]] = {}
        self._requests: list[Seen] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.queen = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="queen", daemon=True)
        self.answer("GET", "/health", {"status": "alive", "version": __version__})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environ(self) -> dict[str, str]:
        """Give the variables that send a keeper here."""
        return {"RBEE_QUEEN_URL": self.url, "RBEE_API_KEY": "a-key-of-tests"}

    def answer(self, method: str, path: str, body: Any, status: int = 200) -> None:
        """Answer a route with JSON; of several answers each is given once and the last one for ever."""
        self._answers.setdefault((method, path), []).append(_Answer(status, body))

    def raw(self, method: str, path: str, content: bytes) -> None:
        """Answer a route with these bytes and an HTML type."""
        self._answers[method, path] = [_Answer(raw=content)]

    def stream(self, method: str, path: str, *events: bytes, hang: bool = False) -> None:
        """Answer a route with events; *hang* leaves the connection open after them."""
        self._answers.setdefault((method, path), []).append(_Answer(events=list(events), hang=hang))

    def requests(self, method: str, path: str) -> list[Seen]:
        """List the requests of a route."""
        with self._lock:
            return [seen for seen in self._requests if (seen.method, urlsplit(seen.path).path) == (method, path)]

    def take(self, seen: Seen) -> _Answer | None:
        """Note a request and give the answer set for it."""
        with self._lock:
            self._requests.append(seen)
            answers = self._answers.get((seen.method, urlsplit(seen.path).path))
            if not answers:
                return None
            return answers.pop(0) if len(answers) > 1 else answers[0]


class _Server(ThreadingHTTPServer):
    queen: StandInQueen
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: _Server

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        answer = self.server.queen.take(Seen(self.command, self.path, dict(self.headers), body))
        if answer is None:
            self._json(404, refusal("ROUTE_NOT_FOUND", f"the stand-in has no answer for {self.command} {self.path}"))
        elif answer.raw is not None:
            self._head(200, "text/html")
            self.wfile.write(answer.raw)
        elif answer.events or answer.hang:
            self._stream(answer)
        else:
            self._json(answer.status if answer.body is not None else 204, answer.body)

    def _stream(self, answer: _Answer) -> None:
        self._head(200, "text/event-stream")
        for one in answer.events:
            self.wfile.write(one)
            self.wfile.flush()
        if answer.hang:
            self.server.queen.closing.wait(60)

    def _json(self, status: int, body: Any) -> None:
        self._head(status, "application/json")
        if body is not None:
            self.wfile.write(json.dumps(body).encode())

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
        """Keep quiet."""
