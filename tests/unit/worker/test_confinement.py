"""What a worker may still do once it is confined: the rules, and that the kernel holds them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from rbee import landlock
from rbee.worker.confinement import Surroundings, make_device_files, rules_for
from rbee.worker.settings import WorkerSettings

needs_landlock = pytest.mark.skipif(not landlock.abi_version(), reason="this kernel has no Landlock")
PYTHON = Surroundings(python=("/opt/rbee",), libraries=("/opt/cuda/lib",), gpu=("/dev/nvidia0",), cache="/home/.nv")


def settings(model: Path, **more: Any) -> WorkerSettings:
    values = {"model_path": model, "api_key": "key", "port": 8001, **more}
    return WorkerSettings.model_validate(values)


def test_a_worker_reads_its_model_and_its_program_only() -> None:
    """The folder of the model is not among what it may read, nor any home, nor the settings of daemons."""
    rules = rules_for(settings(Path("/srv/models/hf/a.gguf")), PYTHON)

    assert {"/srv/models/hf/a.gguf", "/opt/rbee", "/opt/cuda/lib"} <= set(rules.read)
    for secret in ("/", "/etc", "/etc/rbee", "/srv", "/srv/models", "/home", "/root", "/var", "/run", "/tmp", "/dev"):
        assert secret not in {*rules.read, *rules.use, *rules.keep}


def test_all_parts_of_a_split_model_can_be_read() -> None:
    """Each part is named by itself."""
    rules = rules_for(settings(Path("/m/big-00001-of-00003.gguf")), PYTHON)

    assert [path for path in rules.read if path.startswith("/m/")] == [
        f"/m/big-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]


def test_only_a_worker_on_a_gpu_gets_the_gpu() -> None:
    """Device files and the cache of the driver are for those that compute there."""
    on_cpu, on_gpu = (rules_for(settings(Path("/m.gguf"), backend=name), PYTHON) for name in ("cpu", "cuda"))

    assert not on_cpu.keep
    assert "/dev/nvidia0" not in on_cpu.use
    assert on_gpu.keep == ("/home/.nv", "/dev/shm")
    assert set(on_gpu.use) - set(on_cpu.use) == {"/dev/nvidia0", "/proc/self/task"}


@pytest.mark.parametrize(("there", "made"), [((), False), (("nvidiactl",), True), (("nvidiactl", "nvidia-uvm"), False)])
def test_the_file_of_the_gpus_memory_is_made_before(tmp_path: Path, there: tuple[str, ...], *, made: bool) -> None:
    """NVIDIA's own program is run where there is a driver and that file is not there yet, and only there."""
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in there:
        (devices / name).touch()
    program = tmp_path / "nvidia-modprobe"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "called"}\n')
    program.chmod(0o700)

    make_device_files(devices, str(program))
    make_device_files(devices, "no-such-program")

    assert (tmp_path / "called").exists() is made
    if made:
        assert (tmp_path / "called").read_text() == "-u -c=0\n"


def test_a_worker_listens_on_its_port_and_calls_nobody_but_its_hive() -> None:
    """The only address it may call is the one that its readiness is reported to."""
    assert rules_for(settings(Path("/m.gguf")), PYTHON).connect == ()
    rules = rules_for(settings(Path("/m.gguf"), callback_url="http://127.0.0.1:9200/v1/workers/ready"), PYTHON)

    assert (rules.bind, rules.connect) == ((8001,), (9200,))


def test_older_kernels_are_asked_for_what_they_know() -> None:
    """A right that a version of Landlock does not have is not handled: asking for it would be refused."""
    assert landlock.handled_files(1) == 0x1FFF
    assert not landlock.handled_files(2) & landlock.TRUNCATE
    assert landlock.handled_files(3) & landlock.TRUNCATE
    assert not landlock.handled_files(4) & landlock.IOCTL_DEV
    assert landlock.handled_files(7) & landlock.IOCTL_DEV


_TRY: Final = """
import json, os, socket, sys, threading
from rbee.worker.confinement import confine
from rbee.worker.settings import WorkerSettings

order = json.loads(sys.argv[1])
confine(WorkerSettings.model_validate(order["settings"]))
found = {}

def attempt(name, action):
    try:
        action()
        found[name] = "done"
    except OSError as error:
        found[name] = type(error).__name__

def look():
    for path in order["read"]:
        attempt(path, lambda: open(path, "rb").read(1))
    for path in order["write"]:
        attempt("write " + path, lambda: open(path, "wb"))
    attempt("environ", lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(1))
    attempt("memory", lambda: open(f"/proc/{os.getppid()}/mem", "rb").read(1))
    for port in order["connect"]:
        attempt(f"connect {port}", lambda: socket.create_connection(("127.0.0.1", port)).close())
    attempt("bind", lambda: socket.create_server(("127.0.0.1", 0)).close())
    attempt("signal", lambda: os.kill(os.getppid(), 0))
    attempt("program", lambda: os.posix_spawn("/bin/true", ["true"], {}))

thread = threading.Thread(target=look)
thread.start()
thread.join()
print(json.dumps(found))
"""


@needs_landlock
def test_the_kernel_holds_it(tmp_path: Path) -> None:
    """A confined worker, and each thread of it, reads neither keys nor catalog nor other models, and calls nobody."""
    home = tmp_path / "home"
    names = ("models.db", "secrets/api-key", "models/other.gguf", "models/own.gguf")
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    catalog, secret, other, own = (str(home / name) for name in names)

    with socket.create_server(("127.0.0.1", 0)) as hive, socket.create_server(("127.0.0.1", 0)) as stranger:
        ports = [server.getsockname()[1] for server in (hive, stranger)]
        order = {
            "settings": {
                "model_path": own,
                "api_key": "key",
                "port": 1,
                "callback_url": f"http://127.0.0.1:{ports[0]}/",
            },
            "read": [own, secret, catalog, other, "/etc/shadow", "/proc/self/environ", "/proc/meminfo", os.__file__],
            "write": [own, str(home / "new"), str(tmp_path / "new"), "/dev/null"],
            "connect": ports,
        }
        done = subprocess.run(
            [sys.executable, "-c", _TRY, json.dumps(order)], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    version = landlock.abi_version()
    allowed = {name for name, outcome in found.items() if outcome == "done"}
    expected = {own, "/proc/self/environ", "/proc/meminfo", os.__file__, "write /dev/null", "program"}
    if version >= 4:
        assert not {f"connect {ports[1]}", "bind"} & allowed
    if version >= 6:
        assert "signal" not in allowed
    assert allowed - {f"connect {ports[1]}", "bind", "signal"} == expected | {f"connect {ports[0]}"}


_NAME_A_THREAD: Final = """
import json, os, sys, threading
from rbee.worker.confinement import confine
from rbee.worker.settings import WorkerSettings

confine(WorkerSettings.model_validate(json.loads(sys.argv[1])))
named, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (named.set(), done.wait()))
thread.start()
named.wait()
outcome = "done"
try:
    with open(f"/proc/self/task/{thread.native_id}/comm", "r+b", buffering=0) as file:
        file.write(b"cuda-thread")
except OSError as error:
    outcome = type(error).__name__
done.set()
folder = f"/proc/{os.getpid()}/task"
held = folder in [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry)]
print(json.dumps([outcome, held]))
"""


@needs_landlock
@pytest.mark.parametrize(("backend", "outcome"), [("cuda", "done"), ("cpu", "PermissionError")])
def test_a_worker_on_a_gpu_names_its_threads(tmp_path: Path, backend: str, outcome: str) -> None:
    """CUDA's driver does, and fails where it may not; the folder stays open, so that the kernel keeps the rule."""
    order = {"model_path": str(tmp_path / "own.gguf"), "api_key": "key", "port": 1, "backend": backend}
    done = subprocess.run(
        [sys.executable, "-c", _NAME_A_THREAD, json.dumps(order)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [outcome, backend == "cuda"]
