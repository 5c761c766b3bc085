"""Run a command on a terminal, as a person does."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import termios
import threading

from tests.support.machine import BIN, Machine
from tests.support.waiting import eventually, slowness


class Terminal:
    """A command on a terminal of 80 columns, with *more* in its environment; `text` is all that it wrote there."""

    def __init__(self, machine: Machine, *argv: str, **more: str) -> None:
        self.text = ""
        self._main, shell = pty.openpty()
        termios.tcsetwinsize(shell, (30, 80))
        environ = {**machine.environ(), "TERM": "xterm"}
        environ.pop("NO_COLOR", None)
        environ |= more
        self.process = subprocess.Popen(
            [str(BIN / argv[0]), *argv[1:]],
            env=environ,
            stdin=shell,
            stdout=shell,
            stderr=shell,
            cwd=machine.root,
            start_new_session=True,
        )
        os.close(shell)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.ended()

    def shows(self, text: str, *, after: int = 0) -> int:
        """Wait for a text that comes after so many characters; give where it ends."""
        eventually(lambda: text in self.text[after:], within=10, because=f"{text!r} is on the terminal")
        return self.text.index(text, after) + len(text)

    def types(self, line: str) -> int:
        """Type a line, or with a control character what that means; give how much was written before."""
        before = len(self.text)
        os.write(self._main, line.encode())
        return before

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; give the exit code."""
        code = self.process.wait(15 * slowness())
        self._reading.join(10)
        os.close(self._main)
        return code

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # so a terminal ends whose program has
            while data := os.read(self._main, 65536):
                self.text += data.decode(errors="replace")
