"""A web server that means harm, with TLS, on an address of this machine.

    with HostileHost(tmp_path) as host:
        host.redirect("/m.gguf", "http://127.0.0.1:80/")
        host.endless("/e.gguf", b"GGUF")
        monkeypatch.setenv("SSL_CERT_FILE", host.certificate)

What came to it, it remembers.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACKS = ("127.0.0.1", "127.0.0.2")
_PIECE = 64 * 1024


def make_certificate(folder: Path) -> Path:
    """Write a certificate for the loopback's names and addresses, with its key, into one file."""
    path = folder / "hostile.pem"
    if path.exists():
        return path
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in LOOPBACKS]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        certificate.public_bytes(encoding) + key.private_bytes(encoding, private, serialization.NoEncryption())
    )
    return path


class HostileHost:
    """A server on a free port of *address*, from `with` to the end of it."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", name: str = "localhost") -> None:
        self.certificate = str(make_certificate(folder))
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes | None, bytes]] = {}
        self.closing = threading.Event()
        self._server = _Server((address, 0), _Handler)
        self._server.host = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hostile", daemon=True)
        self.url = f"https://{name}:{self._server.server_port}"

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

    def serve(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> str:
        """Give *content* at *path*, with a length unless the headers say otherwise; give the address."""
        self.answers[path] = (200, headers or {}, content, b"")
        return self.url + path

    def redirect(self, path: str, to: str) -> str:
        """Send whoever asks for *path* on; give the address."""
        self.answers[path] = (302, {"Location": to}, b"", b"")
        return self.url + path

    def endless(self, path: str, begin: bytes, *, headers: dict[str, str] | None = None) -> str:
        """Give *begin* and then zeros for ever, in chunks without a length; give the address."""
        self.answers[path] = (200, headers or {}, None, begin)
        return self.url + path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    host: HostileHost

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that hang up: they should."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 20

    def do_GET(self) -> None:
        host = self.server.host
        path = self.path.partition("?")[0]
        host.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, content, begin = host.answers.get(path, (404, {}, b"", b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if content is None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                self._endless(begin)
            self.close_connection = True
            return
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _endless(self, begin: bytes) -> None:
        piece = begin + bytes(_PIECE - len(begin))
        while not self.server.host.closing.wait(0.001):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            piece = bytes(_PIECE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
        """Keep quiet: `seen` is the log."""
