"""Run relays in front of the same source: our queen, nginx, sglang-router."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import source
from bench.servers import free_port
from rbee.fleet.build_target import cache_home
from tools.longstep import run_quietly, say

SGLANG_ROUTER = "sglang-router==0.3.2"
_READY_WITHIN_S = 60.0
_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream source {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://source; proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that serves; *pids* are its processes, none for the source itself."""

    port: int
    headers: dict[str, str]
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        """Sum up the processor time that it has taken."""
        times = [psutil.Process(pid).cpu_times() for pid in self.pids]
        return float(sum(one.user + one.system for one in times))


@contextmanager
def sourced() -> Iterator[tuple[Relay, int]]:
    """Run the source; gives it, reached directly, and the port of its hive."""
    port, hive_port = free_port(), free_port()
    with run_process([sys.executable, "-m", "bench.source", str(port), str(hive_port)], port, "/health") as pid:
        yield Relay(port, {}, (pid,)), hive_port


@contextmanager
def queen(hive_port: int, *, max_tasks: int = 5000) -> Iterator[Relay]:
    """Run our queen with the source's hive as its only node."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as home:
        command = [str(Path(sys.executable).with_name("queen-rbee")), "--port", str(port), "--local-hive", "false"]
        command += ["--max-tasks", str(max_tasks), "--log-level", "warning"]
        with run_process(command, port, "/health", {"RBEE_HOME": home}) as pid:
            key = (Path(home) / "secrets" / "api-key").read_text(encoding="utf-8").strip()
            headers = {"Authorization": f"Bearer {key}"}
            node = {"node_name": "bench", "ssh_host": "127.0.0.1", "hive_port": hive_port, "hive_key": source.KEY}
            ask(port, "POST", "/v2/registry/beehives/add", headers, node)
            until(lambda: source.MODEL in ask(port, "GET", "/v1/models", headers))
            yield Relay(port, headers, (pid,))


@contextmanager
def nginx(upstream: int) -> Iterator[Relay]:
    """Run nginx, unbuffered. Raises RuntimeError where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed; on Debian: apt-get install nginx-light")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream), encoding="utf-8")
        with run_process([program, "-c", str(config), "-e", f"{folder}/error.log"], port, "/health") as pid:
            children = [child.pid for child in psutil.Process(pid).children()]
            yield Relay(port, {}, (pid, *children))


@contextmanager
def sglang_router(upstream: int) -> Iterator[Relay]:
    """Run sglang-router, installed once into a place of its own."""
    folder = cache_home() / "peers" / SGLANG_ROUTER.replace("==", "-")
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"  installing {SGLANG_ROUTER}, a peer, into {folder}")
        venv.create(folder, with_pip=True)
        run_quietly([python, "-m", "pip", "install", "-q", SGLANG_ROUTER])
    port = free_port()
    command = [str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin", "--log-level", "error"]
    command += ["--prometheus-port", str(free_port()), "--max-concurrent-requests", "5000"]
    with run_process(command, port, "/health") as pid:
        yield Relay(port, {}, (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))))


def all_relays(stack: ExitStack) -> dict[str, Relay]:
    """Start everything in front of one source, which is among them; a missing peer is left out and reported."""
    upstream, hive_port = stack.enter_context(sourced())
    relays = {"source": upstream, "ours": stack.enter_context(queen(hive_port))}
    for name, start in (("nginx", nginx), ("sglang-router", sglang_router)):
        try:
            relays[name] = stack.enter_context(start(upstream.port))
        except RuntimeError as failure:
            print(f"{name} is left out: {failure}", file=sys.stderr)
    return relays


@contextmanager
def run_process(command: list[str], port: int, health: str, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run a program that answers at *port*; gives its process id. Raises RuntimeError, with its log."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env={**own, **(env or {})}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            until(lambda: _alive(process) and bool(ask(port, "GET", health, {})))
            yield process.pid
        except RuntimeError as failure:
            log.seek(0)
            raise RuntimeError(f"{command[0]}: {failure}: {log.read()[-1500:].decode(errors='replace')}") from failure
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _alive(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"it ended with {process.returncode}")
    return True


def until(there: Callable[[], bool]) -> None:
    """Wait until it is there. Raises RuntimeError after a minute."""
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if there():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"it did not serve within {_READY_WITHIN_S:g} s")


def ask(port: int, method: str, path: str, headers: dict[str, str], body: object = None) -> str:
    """Send a request; return the text of the answer, "" where it was refused."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        return text if answer.status < 300 else ""
    finally:
        connection.close()
