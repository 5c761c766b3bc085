"""Run Debian's Prometheus with the rules that are shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.clients.installation import install
from tests.support.machine import free_ports
from tests.support.waiting import eventually

FILES: Final = Path(__file__).parents[2] / "roles" / "rbee_queen" / "files"
RULES: Final = "rbee.rules.yml"
_GET: Final = "apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }"


def programs_of_debian() -> Path:
    """Return the folder of Debian's prometheus and promtool; skip where that cannot be had."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("Prometheus: it is taken from Debian, and there is no apt-get here")
    commands = [["sh", "-c", _GET], ["sh", "-c", "dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb"]]
    return install("prometheus", Path(__file__).with_name("packages.txt"), commands) / "usr" / "bin"


def values(asks: httpx.Client, expression: str) -> list[float]:
    """Ask for the values of an expression now."""
    answer = asks.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return [float(each["value"][1]) for each in answer["data"]["result"]]


@contextmanager
def prometheus(programs: Path, home: Path, jobs: dict[str, tuple[str, str]]) -> Iterator[httpx.Client]:
    """Run a Prometheus that scrapes these addresses with these keys."""
    home.mkdir(parents=True)
    shutil.copy(FILES / RULES, home)
    scrapes = []
    for name, (url, key) in jobs.items():
        (home / f"{name}.key").write_text(key)
        scrapes.append(
            {
                "job_name": name,
                "scrape_interval": "1s",
                "authorization": {"credentials_file": f"{name}.key"},
                "static_configs": [{"targets": [url.removeprefix("http://")]}],
            }
        )
    # JSON is YAML too.
    settings = {"rule_files": [RULES], "scrape_configs": scrapes, "global": {"evaluation_interval": "1s"}}
    (home / "prometheus.yml").write_text(json.dumps(settings))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([programs / "prometheus", *options], cwd=home, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=30) as asks:

            def ready() -> bool:
                assert process.poll() is None, (home / "log").read_text()
                try:
                    return asks.get("/-/ready").status_code == 200
                except httpx.TransportError:
                    return False

            eventually(ready, within=30, because="Prometheus is ready")
            yield asks
    finally:
        process.terminate()
        process.wait(30)
