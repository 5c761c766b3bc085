"""The page behind nginx, below a prefix of its address, by TLS or not: as README says to set it up."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from tests.console.browser import SHOTS, browse, install_package, link
from tests.support.checkout import ROOT
from tests.support.machine import Machine, free_ports
from tests.support.queens import QueenProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]
NGINX: Final = Path("/usr/sbin/nginx")
VIEWS: Final = {
    "fleet": "cpu:0",
    "models": "On disks",
    "activity": "done",
    "logs": "worker started",
    "keys": "Make a key",
}
_OPENSSL: Final = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost")
_NGINX_CONF: Final = """
daemon off;
error_log stderr;
pid {home}/pid;
events {{}}
http {{
  access_log {home}/access.log;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port}{tls};
    {location}
  }}
}}
"""


def location() -> str:
    """Return what the inventory's README says of nginx."""
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "inventory" / "README.md").read_text(), re.DOTALL)
    assert found, "inventory/README.md has a block of nginx"
    return found[1]


@contextmanager
def nginx(home: Path, queen: QueenProcess, *, tls: bool) -> Iterator[str]:
    """Run nginx before a queen; yield the address of its page."""
    install_package("nginx-light", NGINX)
    home.mkdir()
    (port,) = free_ports(1)
    secured = ""
    if tls:
        subprocess.run(
            [*_OPENSSL, "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=home,
            check=True,
            capture_output=True,
        )
        secured = f" ssl; ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem"
    before = location().replace("127.0.0.1:8080", queen.url.removeprefix("http://"))
    (home / "nginx.conf").write_text(_NGINX_CONF.format(home=home, port=port, tls=secured, location=before))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([NGINX, "-c", home / "nginx.conf", "-p", home], stdout=log, stderr=log)
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}/ai/"

    def answers() -> bool:
        assert process.poll() is None, (home / "log").read_text()
        try:
            return httpx.get(f"{address}health", verify=False, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers, within=10, because="nginx serves")
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_everything_works_below_a_prefix(modules: Path, machine: Machine, tmp_path: Path, *, tls: bool) -> None:
    """Signing in by the link, each view, an answer that is seen while it is written, what changes something."""
    if tls and shutil.which("openssl") is None:
        pytest.skip("console: openssl is not installed")
    machine.fake(tokens_per_s=10)  # so that the answer is not over before it is stopped
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    with nginx(tmp_path / "nginx", queen, tls=tls) as address:
        signed_in = link(machine, "--at", address)
        assert signed_in.startswith(address)
        found = browse(
            modules,
            signed_in,
            *(step for view, text in VIEWS.items() for step in (("view", view), ("sees", text))),
            ("view", "chat"),
            ("fills", "Message", "Bees?"),
            ("click", "Send"),
            ("sees", "one"),
            ("click", "Stop"),
            ("view", "fleet"),
            ("click", "Yield"),
            ("sees", "Yielded to another program"),
            ("cookies",),
            ("reload",),
            ("sees", "Yielded to another program"),
            ("click", "Sign out"),
            ("sees", "sign in with a key"),
            self_signed=tls,
        )
        (cookie,) = found["texts"][0]
        told = {name: cookie[name] for name in ("name", "path", "secure", "sameSite")}
        assert told.pop("name").startswith("rbee_session_")
        assert told == {"path": "/ai/", "secure": tls, "sameSite": "Strict"}
        changed = httpx.post(
            f"{address}v2/console/sign-in",
            json={"key": queen.http.headers["Authorization"].removeprefix("Bearer ")},
            verify=False,
            trust_env=False,
            timeout=60,
        )
        sent = {"X-Rbee-Csrf": changed.json()["csrf"], "Cookie": changed.headers["set-cookie"].partition(";")[0]}
        for origin, status in ((address.removesuffix("/ai/"), 204), ("https://evil.example", 403)):
            answer = httpx.delete(
                f"{address}v2/console/sessions/none",
                headers={**sent, "Origin": origin},
                verify=False,
                trust_env=False,
                timeout=60,
            )
            assert answer.status_code == status, answer.text


def test_a_queen_that_comes_back_behind_a_proxy_is_found_again(modules: Path, machine: Machine, tmp_path: Path) -> None:
    """While the proxy has nobody to ask the page says so and asks again; then it tells that its session is over."""
    queen = QueenProcess(machine)
    told = SHOTS / "bad-gateway.png"
    told.unlink(missing_ok=True)
    with nginx(tmp_path / "nginx", queen, tls=False) as address, ThreadPoolExecutor() as aside:
        looking = aside.submit(
            browse,
            modules,
            link(machine, "--at", address),
            ("sees", "cpu:0"),
            ("shot", told.stem),
            ("sees", "The queen answered with status 502. Trying again."),
            ("shot", told.stem),
            ("sees", "The session is over."),
            refused=True,
        )
        eventually(lambda: told.exists() or looking.done(), within=60, because="the page is there")
        first = told.stat().st_mtime_ns
        process = psutil.Process(queen.pid)
        process.terminate()
        process.wait(30)
        eventually(
            lambda: told.stat().st_mtime_ns != first or looking.done(), within=60, because="the page has told of it"
        )
        QueenProcess(machine)
        looking.result()
