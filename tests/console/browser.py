"""Drive the queen's page in a browser, Debian's Chromium, by npm's playwright-core."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from rbee.config.file_lock import file_lock
from rbee.fleet.build_target import cache_home
from tests.clients.installation import install
from tests.support.checkout import ROOT
from tests.support.machine import Machine
from tests.support.waiting import slowness

CHROMIUM: Final = Path("/usr/bin/chromium")
SHOTS: Final = ROOT / ".bench" / "console"


def node_modules() -> Path:
    """Return the folder of the npm packages that drive a browser; skip where they or the browser cannot be had.

    As the client programs: what cannot be installed on a machine is skipped there, with its reason.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("console: node and npm are not installed")
    install_package("chromium", CHROMIUM)
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"]
    return install("console", Path(__file__).with_name("package.json"), [command]) / "node_modules"


def install_package(name: str, program: Path) -> None:
    """Install a package of Debian where its program is not there yet; skip where it cannot be had."""
    home = cache_home() / "clients"
    home.mkdir(parents=True, exist_ok=True)
    # Of two that install at once, one would find Debian's own lock taken.
    with file_lock(home / "debian.lock"):
        if program.exists():
            return
        command = f"apt-get install -y -qq --no-install-recommends {name}"
        try:
            done = subprocess.run(
                ["sh", "-c", f"{command} || {{ apt-get update -qq && {command}; }}"],
                env={"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                capture_output=True,
                text=True,
                check=False,
                timeout=250,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"console: the package {name} takes too long to install; run it again later")
    if done.returncode:
        pytest.skip(f"console: the package {name} cannot be installed: {done.stderr[-300:]}")


def link(machine: Machine, *options: str) -> str:
    """Return a link that signs in."""
    ran = machine.run("rbee-keeper", "console", "--no-browser", *options)
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


def browse(modules: Path, url: str, *steps: tuple[Any, ...], refused: bool = False, **more: Any) -> dict[str, Any]:
    """Do *steps* in a browser; return what it found. Screenshots are kept under `.bench`.

    Of a request that is *refused*, as the test means it, the browser tells on its console.
    """
    SHOTS.mkdir(parents=True, exist_ok=True)
    task = {"url": url, "steps": steps, "out": str(SHOTS), "timeout_ms": 10_000 * slowness(), **more}
    done = subprocess.run(
        ["node", Path(__file__).with_name("browser.mjs"), modules],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
        timeout=120 * slowness(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["foreign"] == [], "a request left the origin"
    said = [line for line in found["console"] if not (refused and "the server responded with a status of" in line)]
    assert said == [], "the browser's console is not empty"
    return found
