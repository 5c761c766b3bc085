"""Stand in for the model hub: the real huggingface_hub talks to it through `HF_ENDPOINT`.

    with Hub() as hub:
        hub.add("bees/tiny-GGUF", "tiny-Q4_K_M.gguf", content)
        hub.fail("bees/tiny-GGUF", "tiny-Q4_K_M.gguf", Reset(at=0.4), times=2)
        run(["rbee-hive", ...], env={**os.environ, **hub.environ(tmp_path)})
        assert hub.ranges("bees/tiny-GGUF", "tiny-Q4_K_M.gguf") == [None, "bytes=400-", "bytes=640-"]

It speaks model info with file sizes and sha256, the tree listing, and resolve with ETag, X-Repo-Commit,
X-Linked-Etag and X-Linked-Size, a redirect to another host name for the bytes, and Range.
Two habits of huggingface_hub 2.4 to know: it resumes by itself after a `Cut` but not after a `Reset` (ReadError),
and it writes pieces of 10 MiB (`constants.DOWNLOAD_CHUNK_SIZE`), so what is left of less than that is lost.
Any other file that the tests serve over plain http lies at `hub.plain_url(...)`, under the same faults.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from tests.support.faults import (
    Cut,
    Earlier,
    Expired,
    Fault,
    Later,
    OnlyTheRest,
    Reset,
    Slow,
    Stall,
    Status,
    Truncated,
    WrongBytes,
)
from tests.support.hub_contents import File, Repo, oid

__all__ = ["Cut", "Fault", "Hub", "Reset", "Seen", "Slow", "Stall", "Status", "Truncated", "WrongBytes"]

_PIECE = 64 * 1024


@dataclass(slots=True)
class Seen:
    """One request that reached the hub, with the number of body bytes that have left for it so far."""

    method: str
    path: str
    headers: dict[str, str]
    status: int
    bytes_sent: int


class Hub:
    """A hub on a free port of *host*, from `with` to the end of it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._repos: dict[str, Repo] = {}
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._closing = threading.Event()
        self._server = _Server((host, 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hub", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        """The endpoint, without a slash at the end."""
        return f"http://{self._host}:{self._server.server_port}"

    @property
    def other_url(self) -> str:
        """The same place by another name, where there is one: bytes come from there, as with the real hub."""
        return self.url.replace("127.0.0.1", "localhost")

    def environ(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Give the variables that send huggingface_hub here, with its cache and token below *home* only."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
            **({"HF_TOKEN": token} if token else {}),
        }

    def add(self, repo: str, path: str, content: bytes, *, lfs: bool = True) -> str:
        """Put a file into a repository, which is made if need be; give its sha256. Plain git files are not *lfs*."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._repo(repo).files[path] = File(content, sha256, lfs)
        return sha256

    def tag(self, repo: str, name: str) -> None:
        """Give a repository, as it is, a further revision."""
        self._repo(repo).tags.add(name)

    def protect(self, repo: str, *, token: str, gated: bool = False) -> None:
        """Ask for *token*; a *gated* repository says so, a private one pretends not to be there."""
        entry = self._repo(repo)
        entry.token, entry.gated = token, gated

    def fail(self, repo: str, path: str, fault: Fault, *, times: int | None = 1) -> None:
        """Let the next *times* downloads of a file go wrong (None: all that follow), after faults set before."""
        file = self._repos[repo].files[path]
        with self._lock:
            if times is None:
                file.always = fault
            else:
                file.faults.extend([fault] * times)

    def heal(self, repo: str, path: str) -> None:
        """Let every download of a file go well from now on."""
        file = self._repos[repo].files[path]
        with self._lock:
            file.faults.clear()
            file.always = None

    def plain_url(self, repo: str, path: str) -> str:
        """Give a plain address of a file, without the hub's headers and redirects, for `https:` style references."""
        return f"{self.url}/plain/{quote(repo)}/{quote(path)}"

    @property
    def requests(self) -> list[Seen]:
        """Every request that was answered or is being answered, in order."""
        with self._lock:
            return list(self._seen)

    def downloads(self, repo: str, path: str) -> list[Seen]:
        """The requests for the bytes of one file."""
        tail = f"/{quote(repo)}/{quote(path)}"
        return [
            seen
            for seen in self.requests
            if seen.method == "GET" and seen.path.startswith(("/cdn/", "/plain/")) and seen.path.endswith(tail)
        ]

    def ranges(self, repo: str, path: str) -> list[str | None]:
        """The Range header of each request for the bytes of one file."""
        return [seen.headers.get("range") for seen in self.downloads(repo, path)]

    def _repo(self, repo: str) -> Repo:
        commit = hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()
        return self._repos.setdefault(repo, Repo(commit=commit, token=None, gated=False))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    hub: Hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that hang up: that is what many tests make them do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _seen: Seen

    def do_GET(self) -> None:
        self._route(unquote(urlsplit(self.path).path))

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    @property
    def _hub(self) -> Hub:
        return self.server.hub

    def _route(self, path: str) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            self._tree(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/(?:cdn|plain)/([^/]+/[^/]+)/(.+)", path):
            self._bytes(found[1], found[2])
        else:
            self._error(404, None, f"no such page: {path}")

    def _open(self, name: str, revision: str | None) -> Repo | None:
        """Find a repository that this client may see, or answer as the hub does."""
        repo = self._hub._repos.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None:
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.token is not None and token != repo.token:
            if repo.gated:
                self._error(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
            else:
                self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif revision not in (None, "main", repo.commit, *repo.tags):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repo
        return None

    def _info(self, name: str, revision: str | None) -> None:
        repo = self._open(name, revision)
        if repo is None:
            return
        siblings: list[dict[str, Any]] = []
        for path, file in sorted(repo.files.items()):
            sibling: dict[str, Any] = {"rfilename": path}
            if "blobs=" in self.path:
                sibling |= {"size": len(file.content), "blobId": oid(file)}
                if file.lfs:
                    sibling["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": 134}
            siblings.append(sibling)
        gated = "auto" if repo.gated else False
        body = {"_id": repo.commit[:24], "id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
        self._json(body | {"private": repo.token is not None and not repo.gated, "gated": gated, "tags": ["gguf"]})

    def _tree(self, name: str, revision: str, folder: str) -> None:
        repo = self._open(name, revision)
        if repo is None:
            return
        entries: dict[str, dict[str, Any]] = {}
        prefix = f"{folder}/" if folder else ""
        for path, file in sorted(repo.files.items()):
            if not path.startswith(prefix):
                continue
            rest = path.removeprefix(prefix)
            if "/" in rest:
                inner = prefix + rest.split("/")[0]
                entries[inner] = {"type": "directory", "path": inner, "oid": repo.commit, "size": 0}
            if "/" not in rest or "recursive=true" in self.path.lower():
                entry: dict[str, Any] = {"type": "file", "path": path, "oid": oid(file), "size": len(file.content)}
                if file.lfs:
                    entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
                entries[path] = entry
        self._json(list(entries.values()))

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._open(name, revision)
        if repo is None:
            return
        file = repo.files.get(path)
        if file is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
        elif not self._strike(file):
            headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{oid(file)}"'}
            if not file.lfs:
                self._answer(200, file.content, headers)
                return
            # Another host name, as the hub's own file servers have: clients must drop their token there.
            place = f"{self._hub.other_url}/cdn/{quote(name)}/{quote(path)}"
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content)), "Location": place}
            self._answer(302, b"", headers)

    def _strike(self, file: File) -> bool:
        with self._hub._lock:
            fault = file.next_fault(body=False)
        if isinstance(fault, Status):
            extra = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s is not None else {}
            self._error(fault.status, fault.error_code, f"set to fail with {fault.status}", extra)
        return fault is not None

    def _bytes(self, name: str, path: str) -> None:
        repo = self._hub._repos.get(name)
        file = repo.files.get(path) if repo else None
        if file is None:
            self._error(404, None, "no such file")
            return
        plain = urlsplit(self.path).path.startswith("/plain/")
        if plain and self._strike(file):
            return
        start, end, status = self._range(len(file.content))
        if status == 416:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(file.content)}"})
            return
        content = file.content[start:end]
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{file.sha256}"', "Content-Type": "application/octet-stream"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(file.content)}"
        fault = None
        if self.command == "GET":
            with self._hub._lock:
                fault = file.next_fault(body=True)
        match fault:
            case WrongBytes():
                content = content[:-1] + bytes([content[-1] ^ 0xFF])
            case Truncated(at):
                content = content[: int(len(content) * at)]
            case Expired(refusal):
                self._answer(refusal, b"<Error>ExpiredToken</Error>", {})
                return
            case Earlier() | Later() if status == 206:
                start = fault.start(start)
                content = file.content[start:end]
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(file.content)}"
            case OnlyTheRest() if status == 206:
                status = 200
                headers.pop("Content-Range", None)
        self._head(status, headers, len(content))
        if self.command == "GET":
            self._body(content, fault)

    def _range(self, total: int) -> tuple[int, int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not found:
            return 0, total, 200
        start, end = int(found[1]), min(int(found[2] or total - 1) + 1, total)
        return (start, end, 206) if start < end else (0, 0, 416)

    def _body(self, content: bytes, fault: Fault | None) -> None:
        match fault:
            case Reset(at) | Cut(at) | Stall(at):
                self._send(content[: int(len(content) * at)])
                self.close_connection = True
            case Slow(rate):
                step = max(1, rate // 20)
                for offset in range(0, len(content), step):
                    self._send(content[offset : offset + step])
                    if self._hub._closing.wait(step / rate):
                        return
            case _:
                self._send(content)
        match fault:
            case Stall():
                self._hub._closing.wait(600)
            case Reset():
                # A reset throws away what the client has not read yet; let it read first.
                time.sleep(0.1)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())

    def _send(self, content: bytes) -> None:
        for offset in range(0, len(content), _PIECE):
            piece = content[offset : offset + _PIECE]
            # Before it is sent: whoever has the last byte may look at once.
            self._seen.bytes_sent += len(piece)
            self.wfile.write(piece)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str | None, message: str, extra: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", "X-Error-Message": message, **(extra or {})}
        if code is not None:
            headers["X-Error-Code"] = code
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers, len(body))
        if self.command == "GET":
            self._send(body)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        names = {name.lower(): value for name, value in self.headers.items()}
        self._seen = Seen(self.command, urlsplit(self.path).path, names, status, bytes_sent=0)
        with self._hub._lock:
            self._hub._seen.append(self._seen)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
        """Keep quiet: `Hub.requests` is the log."""
