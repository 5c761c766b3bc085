"""Serve git repositories over HTTP for reading, to everybody or only to who knows the password."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PIECE = 64 * 1024
_PRIVATE = "/private"


class GitServer:
    """Every bare repository in *folder* at `url`/NAME, and at `url`/private/NAME behind a password."""

    def __init__(self, address: str, folder: Path, *, user: str, password: str) -> None:
        self.requests: list[str] = []
        self.folder = folder
        self.expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._server = _Server((address, 0), _Handler)
        self._server.owner = self
        self.url = f"http://{address}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="git", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: GitServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about hosts that hang up or lose their power: that is what many tests make them do."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"{_PRIVATE}/"):
            path = path.removeprefix(_PRIVATE)
            if self.headers.get("Authorization") != self._owner.expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="rig"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self._git(path)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002 - http.server's own
        """Note the request for the tests instead of printing it."""
        self._owner.requests.append(f"{int(code)} {self.command} {self.path}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own
        """Print nothing: the tests look at the notes."""

    @property
    def _owner(self) -> GitServer:
        return self.server.owner

    def _git(self, path: str) -> None:
        """Let git's own program for web servers answer; without a user it refuses to be pushed to."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._owner.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self._owner.folder),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": urlsplit(self.path).query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": str(self.client_address[0]),
        }
        with subprocess.Popen(
            ["git", "http-backend"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as backend:
            assert backend.stdin is not None
            assert backend.stdout is not None
            backend.stdin.write(body)
            backend.stdin.close()
            status, headers = 200, []
            while line := backend.stdout.readline().strip():
                name, value = (part.strip() for part in line.decode("latin-1").split(":", 1))
                if name.lower() == "status":
                    status = int(value.split()[0])
                else:
                    headers.append((name, value))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            while piece := backend.stdout.read(_PIECE):
                self.wfile.write(piece)
