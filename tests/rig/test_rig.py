"""The rig itself: its hosts are real, its bad luck strikes, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import ADMIN_PASSWORD, HostSpec, Rig, RigUnavailable
from tests.rig.claims import HOME, rigs, sweep, traces
from tests.support.checkout import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.rig

_HOLD = """
import sys, time
from tests.rig import Rig
with Rig(hosts=1) as rig:
    print(rig.number, flush=True)
    time.sleep(600)
"""


def _ansible(inventory: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "ansible"
    return subprocess.run(
        [str(program), "-i", str(inventory), "all", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_HOST_KEY_CHECKING": "True"},
    )


def test_hosts_are_machines_with_systemd(rig: Rig) -> None:
    """Each host runs systemd as process 1, has its own name and address, and only its own control groups."""
    for host in rig:
        assert host.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
        assert host.run("hostname").stdout.strip() == host.name
        assert host.address in host.run("ip", "-4", "-o", "address").stdout
        # It waits until everything has started, and says then how that went.
        state = host.run("systemctl", "is-system-running", "--wait", check=False, within=30).stdout.strip()
        assert state in {"running", "degraded"}

    before = rig["h2"].run("systemctl", "show", "--property=MainPID", "ssh").stdout
    rig["h1"].run("systemctl", "stop", "ssh", sudo=True)
    assert rig["h2"].run("systemctl", "show", "--property=MainPID", "ssh").stdout == before


def test_hosts_are_bare_and_shut_off(rig: Rig) -> None:
    """A host has nothing of ours, and no way to the outside; it reaches the controller and the other hosts."""
    host = rig["h1"]

    found = host.run("find", "/", "-xdev", "-iname", "*rbee*", "-not", "-path", "/proc/*", sudo=True).stdout.split()
    assert [path for path in found if not path.startswith(("/home/rbee-admin", "/var/lib/sudo"))] == []
    assert host.run("ip", "route", "show", "default").stdout == ""
    for address in (rig.controller, rig["h2"].address):
        # The kernel answers a closed port at once where there is a way, and says so where there is none.
        probe = f"import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('{address}', 9)))"
        assert host.run("python3", "-c", probe).stdout.strip() == "111"


def test_host_keys_are_checked(rig: Rig) -> None:
    """A host whose key has changed is not talked to."""
    rig["h1"].change_host_key()

    result = rig["h1"].run("true", check=False)

    assert result.code == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in result.stderr


def test_wrong_keys_are_refused(rig: Rig) -> None:
    """A key that no host knows, a user that does not exist and a key that others can read are all refused."""
    host = rig["h1"]

    assert "Permission denied" in host.run("true", key=rig.other_key(), check=False).stderr
    assert "Permission denied" in host.run("true", user="nobody-here", check=False).stderr
    assert "UNPROTECTED PRIVATE KEY FILE" in host.run("true", key=rig.key_with_mode(0o644), check=False).stderr


def test_a_cut_cable_is_noticed_and_mended(rig: Rig) -> None:
    """A host with its cable cut does not answer but runs on, and answers again afterwards."""
    host = rig["h1"]
    boot = host.inside("cat", "/proc/sys/kernel/random/boot_id").stdout
    processes = host.inside("cat", "/proc/1/stat").stdout.split()[21]

    host.cut_cable()
    assert not host.answers()
    assert rig["h2"].answers()
    assert host.inside("hostname").stdout.strip() == "h1"

    host.mend_cable()
    eventually(host.answers, within=20, because="the cable is mended")
    assert host.inside("cat", "/proc/sys/kernel/random/boot_id").stdout == boot
    assert host.inside("cat", "/proc/1/stat").stdout.split()[21] == processes


def test_a_power_cut_ends_everything_at_once(rig: Rig) -> None:
    """A power cut leaves no process of the host, and its disk as it was; the others do not notice."""
    host = rig["h1"]
    host.write_file("/srv/kept", "as it was")
    host.run("systemd-run", "--unit=bystander", "sleep", "600", sudo=True)
    began = time.monotonic()

    host.power_cut()

    assert time.monotonic() - began < 5
    assert not host.is_on
    assert not host.answers()
    assert rig["h2"].answers()
    host.boot()
    assert host.read_file("/srv/kept") == "as it was"
    assert host.run("systemctl", "is-active", "bystander", check=False).stdout.strip() == "inactive"


def test_a_reboot_brings_the_host_back(rig: Rig) -> None:
    """A host that is told to reboot goes down and comes back by itself, with its enabled units started."""
    host = rig["h1"]
    host.write_file(
        "/etc/systemd/system/bee.service", "[Service]\nExecStart=sleep 600\n[Install]\nWantedBy=multi-user.target\n"
    )
    host.run("systemctl", "enable", "bee", sudo=True)

    host.reboot()

    eventually(
        lambda: host.run("systemctl", "is-active", "bee", check=False).stdout.strip() == "active",
        within=20,
        because="the unit was enabled",
    )


def test_a_host_that_was_shut_down_stays_off(rig: Rig) -> None:
    """A host that is stopped, or powers itself off, stays off until it is booted."""
    host = rig["h1"]

    host.run("systemctl", "poweroff", sudo=True, check=False)
    eventually(lambda: not host.is_on, within=20, because="it powered itself off")
    host.boot()
    host.stop()

    assert not host.is_on


def test_a_disk_gets_full(rig: Rig) -> None:
    """What is written to a small disk finds it full, and the rest of the host does not."""
    host = rig["h1"]
    host.fill_disk("/opt/small", mb=4)

    result = host.run("dd", "if=/dev/zero", "of=/opt/small/x", "bs=1M", "count=8", sudo=True, check=False)

    assert result.code == 1
    assert "No space left on device" in result.stderr
    host.empty_disk("/opt/small")
    host.run("dd", "if=/dev/zero", "of=/opt/small/x", "bs=1M", "count=8", sudo=True)


def test_a_reset_makes_hosts_bare_again(rig: Rig) -> None:
    """After a reset a host has a fresh disk, its cable and its power, and Ansible's kept connections are no trap."""
    inventory = rig.write_inventory(rig.folder / "inventory")
    assert _ansible(inventory, "-m", "ping").stdout.count("SUCCESS") == 3
    for host in rig:
        host.write_file("/opt/left/behind", "x")
    rig["h1"].cut_cable()
    rig["h2"].power_cut()

    rig.reset()

    assert [host.exists("/opt/left") for host in rig] == [False, False, False]
    ping = _ansible(inventory, "-m", "ping")
    assert ping.stdout.count("SUCCESS") == 3, ping.stdout + ping.stderr


@pytest.fixture(name="unlucky")
def _unlucky(rig: Rig) -> Iterator[Rig]:
    rig.add_host("asks", HostSpec(sudo="password"))
    rig.add_host("denies", HostSpec(sudo="none", key=True))
    rig.add_host("snakeless", HostSpec(python="absent"))
    rig.add_host("ancient", HostSpec(python="old"))
    rig.add_host("closed", HostSpec(key=False))
    rig.add_host("slow", HostSpec(clock_offset_s=-3600))
    yield rig
    for name in ("asks", "denies", "snakeless", "ancient", "closed", "slow"):
        rig.remove_host(name)


def test_hosts_have_their_own_bad_luck(unlucky: Rig) -> None:
    """A spec gives a host a sudo that asks or denies, no Python or an old one, no key, or a wrong clock."""
    rig = unlucky
    password = f"{ADMIN_PASSWORD}\n"

    assert rig["asks"].run("id", sudo=True, check=False).code == 1
    assert rig["asks"].run("sudo", "-S", "id", "-u", stdin=password).stdout == "0\n"
    assert rig["denies"].run("sudo", "-S", "id", "-u", stdin=password, check=False).code == 1
    assert rig["snakeless"].run("python3", "--version", check=False).code == 127
    assert rig["ancient"].run("python3", "-c", "import sys; print(sys.version_info[:2])").stdout == "(3, 7)\n"
    assert "Permission denied" in rig["closed"].run("true", check=False).stderr
    for sudo in (False, True):
        ahead = int(rig["slow"].run("date", "+%s", sudo=sudo).stdout) - time.time()
        assert -3660 < ahead < -3540
    # Not with --wait: the wrong clock may keep systemd-run itself waiting for ever.
    service = "date +%s > /tmp/now && mv /tmp/now /tmp/when"
    rig["slow"].run("systemd-run", "--quiet", "sh", "-c", service, sudo=True)
    eventually(lambda: rig["slow"].exists("/tmp/when"), within=10, because="the service has told the time")
    assert int(rig["slow"].read_file("/tmp/when")) < time.time() - 3540


def test_hosts_install_from_the_repository(rig: Rig) -> None:
    """Hosts clone the checkout as it lies there, and every branch, tag and commit that a test adds; none can push."""
    host, repository = rig["h1"], rig.repository
    commit = repository.commit("broken", {"rbee/__init__.py": "1/0\n", "added/file": "new\n", "LICENSE": None})
    repository.tag("v9", at="broken")

    host.run("git", "clone", "--quiet", "--depth=1", "--branch=v9", repository.url, "copy")

    assert host.run("git", "-C", "copy", "rev-parse", "HEAD").stdout.strip() == commit
    assert host.run("cat", "copy/rbee/__init__.py").stdout == "1/0\n"
    assert host.run("ls", "copy/LICENSE", check=False).code == 2
    assert (
        host.run("git", "clone", "--quiet", "--branch=none", repository.url, "other", check=False).stderr.strip()
        == "fatal: Remote branch none not found in upstream origin"
    )
    assert host.run("git", "-C", "copy", "push", "origin", "HEAD:refs/heads/x", check=False).code != 0
    repository.commit("main", {"rbee/tomorrow.py": "x = 1\n"})
    host.run("git", "clone", "--quiet", repository.url, "next")
    assert host.run("git", "-C", "next", "rev-parse", "HEAD").stdout.strip() == repository.head()
    assert host.run("cat", "next/rbee/tomorrow.py").stdout == "x = 1\n"


def test_a_private_repository_wants_credentials(rig: Rig) -> None:
    """The private address answers 401 without the password, and serves the same commits with it."""
    host, repository = rig["h1"], rig.repository
    clone = ["env", "GIT_TERMINAL_PROMPT=0", "git", "clone", "--quiet", "--depth=1"]

    refused = host.run(*clone, repository.private_url, "a", check=False)

    assert refused.code == 128
    assert "could not read Username" in refused.stderr
    host.run(*clone, repository.private_url_with_password, "b")
    assert host.run("git", "-C", "b", "rev-parse", "HEAD").stdout.strip() == repository.head()


def test_two_rigs_do_not_meet(rig: Rig) -> None:
    """A second rig beside the first has its own number, network and keys, and its end does not touch the first."""
    with Rig(hosts=1) as other:
        number = other.number
        assert number != rig.number
        assert other["h1"].address != rig["h1"].address
        assert rigs() == {**rigs(), rig.number: True, number: True}

    assert traces(number) == []
    assert all(host.answers() for host in rig)


def test_nothing_of_a_rig_is_left(rig: Rig) -> None:
    """The end of a rig leaves no process, mount, namespace, link, control group or file, even in the middle of harm."""
    with pytest.raises(ZeroDivisionError), Rig(hosts=2) as other:  # noqa: PT012 - what happens before it is the story
        number = other.number
        other["h1"].power_cut()
        other["h2"].cut_cable()
        other["h2"].fill_disk("/opt", mb=1)
        assert traces(number) != []
        raise ZeroDivisionError

    assert traces(number) == []
    assert not (HOME / str(number)).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_rig_is_cleared_away(number: signal.Signals) -> None:
    """A rig whose process was killed is cleared away by the next one; a Ctrl-C clears it at once."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        assert holder.stdout is not None
        rig_number = int(next(line for line in holder.stdout if line.strip().isdigit()))
        holder.send_signal(number)
        holder.wait(30)
    if number is signal.SIGKILL:
        assert [trace for trace in traces(rig_number) if trace.startswith(("process", "mount", "link"))]
        assert rigs()[rig_number] is False

        assert rig_number in sweep()

    assert traces(rig_number) == []


def test_a_person_has_hosts_at_hand(tmp_path: Path) -> None:
    """`up` tells how far it is, leaves hosts running after it has ended, says how to reach them; `down` ends them."""

    def rig(command: str, *argv: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "tests.rig", command, "--inventory", str(inventory.parent), *argv]
        with log.open("w", encoding="utf-8") as out:
            return subprocess.run(words, cwd=ROOT, stdout=out, stderr=out, timeout=300, check=False, text=True)

    log = tmp_path / "said"
    inventory = tmp_path / "inventory" / "hosts.yml"
    try:
        assert rig("up", "--hosts", "1").returncode == 0, log.read_text()
        assert "h1 is up (1 of 1)" in log.read_text()
        assert str(inventory.parent) in log.read_text()
        assert "h1 | SUCCESS" in _ansible(inventory, "-m", "ping").stdout
        assert rig("status").returncode == 0
        assert "make rig-down" in log.read_text()
    finally:
        down = rig("down")

    assert down.returncode == 0, log.read_text()
    assert "is gone" in log.read_text()
    assert not inventory.parent.exists()


def test_a_machine_that_cannot_have_a_rig_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there is no rig, and the reason says what is missing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(RigUnavailable, match="needs root"), Rig(hosts=1):
        pass
