"""Show the main job as a user sees it: one command, a real model's answer, and nothing left running."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

COMMAND = [
    *("rbee-keeper", "infer", "--node", "localhost", "--model", "demo"),
    *("--prompt", "Name three kinds of bees.", "--max-tokens", "40"),
]
GONE_WITHIN_S = 2.0


def main() -> int:
    """Run the job in a home of its own, then check that no process is left."""
    home = Path(tempfile.mkdtemp(prefix="rbee-demo-"))
    code = 1
    try:
        code = _infer(home)
        left = _left_behind(home)
        for process in left:
            print(f"still running: {process.pid} {shlex.join(process.cmdline())}", file=sys.stderr)
            process.kill()
        if not left:
            print("Nothing is left running: no queen, no hive, no worker.")
        code = code or (1 if left else 0)
        return code
    finally:
        if code:
            print(f"The demo failed; its logs are in {home / 'logs'}.", file=sys.stderr)
        else:
            shutil.rmtree(home)


def _infer(home: Path) -> int:
    """Run the command on free ports, so that it does not collide with an rbee on this machine."""
    config = home / "config.toml"
    queen, hive = _free_port(), _free_port()
    config.write_text(
        f'queen_url = "http://127.0.0.1:{queen}"\n\n[queen]\nlocal_hive_port = {hive}\n',
        encoding="utf-8",
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
    env = {**own, "RBEE_HOME": str(home), "RBEE_CONFIG": str(config)}
    print(f"$ {shlex.join(COMMAND)}", flush=True)
    start = time.monotonic()
    code = subprocess.run(
        [str(Path(sys.executable).with_name(COMMAND[0])), *COMMAND[1:]], env=env, check=False
    ).returncode
    print(f"(exit code {code}, {time.monotonic() - start:.1f} s)", flush=True)
    return code


def _left_behind(home: Path) -> list[psutil.Process]:
    """Return the processes that still run with this home in their environment after `GONE_WITHIN_S`."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := _running(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _running(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RBEE_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            # It has exited meanwhile, or belongs to another user.
            continue
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
