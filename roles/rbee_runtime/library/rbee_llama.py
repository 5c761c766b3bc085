#!/usr/bin/python
"""Ansible module: build the llama.cpp wheel on a machine, from a kit that the controller brought."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rbee_llama
short_description: Build the llama.cpp wheel of this kind of machine
description:
  - Builds for the processor and the toolkit of the machine that it runs on. Takes minutes.
options:
  kit:
    description: Sources and build tools, as C(rbee.fleet.wheelhouse) packs them; removed at the end.
    type: path
    required: true
  sha256:
    description: The SHA-256 of the kit, which is checked before anything of it is used.
    type: str
    required: true
  target:
    description: Folder for the wheel.
    type: path
    required: true
  flags:
    description: CMake options of the kind.
    type: str
    required: true
author:
  - The rbee project
"""


def main():
    """Build, or fail with the output of the compiler."""
    module = AnsibleModule(
        argument_spec={
            "kit": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "target": {"type": "path", "required": True},
            "flags": {"type": "str", "required": True},
        }
    )
    _end_with_the_connection()
    kit, target = Path(module.params["kit"]), Path(module.params["target"])
    if module.sha256(str(kit)) != module.params["sha256"]:
        module.fail_json(msg=f"CHECKSUM_MISMATCH: {kit} is not the kit that the controller packed; it was not used.")
    work = target / "work"
    shutil.rmtree(str(target), ignore_errors=True)
    work.mkdir(parents=True)
    with tarfile.open(str(kit)) as tar:
        tar.extractall(str(work), filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(str(work))  # noqa: S202
    venv = work / "venv"
    path = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", ""), "/usr/local/bin", "/usr/local/cuda/bin"])
    env = dict(os.environ)
    env.update(
        PATH=path,
        CMAKE_ARGS="{} -DCMAKE_PROJECT_llama_cpp_INCLUDE={}".format(
            module.params["flags"], shlex.quote(str(work / "native" / "project.cmake"))
        ),
        CMAKE_GENERATOR="Ninja",
        CMAKE_BUILD_PARALLEL_LEVEL=str(os.cpu_count() or 1),
    )
    source = next(iter(work.glob("llama_cpp_python-*.tar.gz")))
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(work), "--no-deps"]
    # pip keeps what it builds by source alone: without this, another toolkit would get the wheel of the first.
    build = [python, "-m", "pip", "wheel", "--no-cache-dir", "--no-index", "--no-deps", "--no-build-isolation"]
    steps = [
        [sys.executable, "-m", "venv", str(venv)],
        [*install, "--require-hashes", "-r", str(work / "requirements.txt")],
        [*build, "-w", str(target), str(source)],
    ]
    try:
        for step in steps:
            done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, check=False)
            if done.returncode:
                tail = done.stdout.decode(errors="replace").strip().splitlines()[-15:]
                module.fail_json(
                    msg="RELEASE_FAILED: llama.cpp could not be built on this machine; it needs a C++ compiler "
                    "(and the CUDA toolkit for the cuda variant). The output ends with: " + " | ".join(tail)
                )
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
        if kit.exists():
            kit.unlink()
    module.exit_json(changed=True, wheel=str(next(iter(target.glob("*.whl")))))


def _end_with_the_connection():
    """End at once, with all that was started, when nobody reads the output any more: the run was cancelled."""

    def watch():
        # Nothing is asked for: that the reader is gone is always told.
        poller = select.poll()
        poller.register(sys.stdout.fileno(), 0)
        poller.poll()
        os.killpg(0, signal.SIGKILL)

    os.setpgid(0, 0)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
