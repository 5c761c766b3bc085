"""A daemon that a service manager restarts, with the test in the service manager's place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.checkout import ROOT
from tests.support.machine import free_ports
from tests.support.tiny_daemon import KEY
from tests.support.waiting import eventually

pytestmark = pytest.mark.process
# Becomes the daemon, which finds the descriptor where systemd puts it.
_HANDED_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.close(int(sys.argv[1]))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """What systemd is to a service of Type=notify with a store for one file descriptor."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self.stored: list[int] = []
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.settimeout(20)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start the daemon, hand it what is stored, and wait until it is ready."""
        env = {**os.environ, "NOTIFY_SOCKET": str(self._path), "TINY_PORT": str(self.port)}
        command = [sys.executable, "-m", "tests.support.tiny_daemon"]
        if self.stored:
            env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "listening"}
            command = [sys.executable, "-c", _HANDED_OVER, str(self.stored[0]), *command]
        process = subprocess.Popen(command, env=env, pass_fds=self.stored, cwd=ROOT)
        self._processes.append(process)
        while "READY=1" not in self._hear():
            pass
        return process

    def ask(self, path: str = "/health") -> AbstractContextManager[httpx.Response]:
        """Ask the daemon on a connection of its own, with no second try."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.stream("GET", f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, trust_env=False)

    def close(self) -> None:
        """End what was started."""
        for process in self._processes:
            process.kill()
            process.wait(10)
        self._drop()
        self._socket.close()

    def _hear(self) -> str:
        message, fds, _, _ = socket.recv_fds(self._socket, 4096, 4)
        if b"FDSTOREREMOVE=1" in message:
            self._drop()
        elif b"FDSTORE=1" in message:
            # A copy of one that is stored already is closed, as systemd does.
            self._drop()
            self.stored = fds
        return message.decode()

    def _drop(self) -> None:
        for fd in self.stored:
            os.close(fd)
        self.stored = []


@pytest.fixture(name="manager")
def _manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_nobody_is_refused_while_a_daemon_is_restarted(manager: Manager) -> None:
    """Who connects after the signal waits for the next daemon; who was being answered gets the whole answer."""
    first = manager.start()
    begun = threading.Event()
    answers: dict[str, str] = {}

    def read_stream() -> None:
        with manager.ask("/stream/slow") as response:
            for piece in response.iter_text():
                begun.set()
                answers["stream"] = answers.get("stream", "") + piece

    def knock() -> None:
        with manager.ask() as response:
            answers["next"] = response.read().decode()

    streaming, waiting = threading.Thread(target=read_stream), threading.Thread(target=knock)
    streaming.start()
    assert begun.wait(10)

    first.send_signal(signal.SIGTERM)
    eventually(lambda: not _listens(first.pid), within=10, because="the first daemon takes no more connections")
    waiting.start()
    assert first.wait(20) == 0
    manager.start()
    streaming.join(30)
    waiting.join(30)

    assert answers["stream"].endswith("data: [DONE]\n\n")
    assert answers["next"] == '{"status":"alive"}'


def test_another_port_is_listened_to_anew(manager: Manager) -> None:
    """A daemon that is to listen elsewhere after its restart gives the kept socket back."""
    first = manager.start()
    first.terminate()
    first.wait(20)
    before, manager.port = manager.port, free_ports(1)[0]

    manager.start()

    with manager.ask() as response:
        assert response.status_code == 200
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", before)) != 0


def _listens(pid: int) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp"))
