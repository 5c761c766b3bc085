"""What can be wrong with a machine: each with its own error, and nothing half-done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.events import Event, HostStarted
from rbee.fleet.report import RunReport, Verdict
from tests.ansible.machines import FIND, Controller
from tests.rig.rig import Rig
from tests.rig.spec import HostSpec

pytestmark = [pytest.mark.rig, pytest.mark.slow]


@pytest.fixture(name="controller")
def _controller(worn_rig: Rig, tmp_path: Path) -> Controller:
    return Controller(worn_rig, tmp_path)


def failure(report: RunReport) -> RbeeError:
    """Give the error of a run that must have failed."""
    error = report.error()
    assert error is not None, report
    return error


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        (HostSpec(sudo="none"), ErrorCode.SUDO_REFUSED, "NOPASSWD"),
        (HostSpec(sudo="password"), ErrorCode.SUDO_REFUSED, "--ask-become-pass"),
        (HostSpec(python="absent"), ErrorCode.PYTHON_MISSING, "h1"),
        (HostSpec(python="old"), ErrorCode.PYTHON_TOO_OLD, "3.11"),
        (HostSpec(clock_offset_s=3600), ErrorCode.CLOCK_SKEW, "timedatectl"),
        (HostSpec(key=False), ErrorCode.SSH_AUTH_FAILED, "h1"),
    ],
    ids=["no sudo", "sudo with a password", "no python", "old python", "clock an hour off", "wrong key"],
)
def test_a_machine_that_cannot_take_a_hive_is_left_alone(
    controller: Controller, spec: HostSpec, code: ErrorCode, said: str
) -> None:
    """The reason has its own code and says what to do, and nothing is on the machine afterwards."""
    host = controller.rig["h1"]
    controller.rig.reset([host], spec=spec)

    error = failure(controller.play("deploy-hives", "h1").report)

    assert error.code is code, error.message
    assert said in error.message + error.hint
    assert host.inside(*FIND.split()).stdout == ""


@pytest.mark.parametrize(
    ("extra", "code", "said", "untouched"),
    [
        ({"rbee_repo_branch": "no-such-branch"}, ErrorCode.REPOSITORY_UNAVAILABLE, "no-such-branch", False),
        ({"rbee_repo_url": "http://192.0.2.1:9/rbee.git"}, ErrorCode.REPOSITORY_UNAVAILABLE, "192.0.2.1", False),
        ({"rbee_accelerator_variant": "cuda"}, ErrorCode.BACKEND_UNAVAILABLE, "cpu", False),
        ({"rbee_hive_port": 22}, ErrorCode.PORT_IN_USE, "22", True),
        ({"rbee_base_install_min_mb": 99_999_999}, ErrorCode.DISK_FULL, "MB", True),
        ({"rbee_install_path": "/usr/share"}, ErrorCode.INVALID_REQUEST, "Set rbee_install_path to a folder", True),
        ({"rbee_state_path": "/usr/share"}, ErrorCode.INVALID_REQUEST, "/usr/share holds what is not rbee's", True),
        ({"rbee_state_path": "/opt/rbee/state"}, ErrorCode.INVALID_REQUEST, "folders apart", True),
        ({"rbee_checkout_path": "/var/lib/rbee/checkout"}, ErrorCode.INVALID_REQUEST, "folders apart", True),
        ({"rbee_user": "rbee-admin"}, ErrorCode.INVALID_REQUEST, "Set rbee_user to a name that is free", True),
    ],
    ids=[
        *("no such branch", "no such repository", "no such backend", "port taken", "too little space"),
        *("programs among others", "state among others"),
        *("state in programs", "checkout in state", "somebody's account"),
    ],
)
def test_an_impossible_request_is_refused(
    controller: Controller, extra: dict[str, Any], code: ErrorCode, said: str, *, untouched: bool
) -> None:
    """What cannot work is told with its code and the thing that is to blame; no service is left behind, and nothing at
    all where the first look shows it.
    """
    host = controller.rig["h1"]
    controller.rig.reset([host])

    error = failure(controller.play("deploy-hives", "h1", extra=extra).report)

    assert error.code is code, error.message
    assert said in error.message
    assert not host.exists("/etc/systemd/system/rbee-hive.service")
    if untouched:
        assert host.inside(*FIND.split()).stdout == ""


def test_a_repository_that_asks_for_a_password_is_refused(controller: Controller) -> None:
    """Nobody waits for a password that no one will type, and a password in the address is not shown."""
    controller.rig.reset([controller.rig["h1"]])

    error = failure(
        controller.play("deploy-hives", "h1", extra={"rbee_repo_url": controller.rig.repository.private_url}).report
    )

    assert error.code is ErrorCode.REPOSITORY_UNAVAILABLE


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        ({"ansible_port": 9}, ErrorCode.SSH_REFUSED, "port"),
        ({"ansible_host": "nowhere.invalid"}, ErrorCode.SSH_HOST_UNKNOWN, "spelling"),
        ({"ansible_user": "stranger"}, ErrorCode.SSH_AUTH_FAILED, "user"),
    ],
    ids=["port refused", "unknown address", "wrong user"],
)
def test_a_machine_that_cannot_be_entered_is_told_why(
    controller: Controller, extra: dict[str, Any], code: ErrorCode, said: str
) -> None:
    """What ssh says becomes a code and a next step."""
    error = failure(controller.play("check-fleet", "h3", extra=extra).report)

    assert error.code is code, error.message
    assert said in error.hint


def test_a_key_that_others_can_read_is_refused(controller: Controller) -> None:
    """ssh does not use a key of mode 644, and the way to mend it is named."""
    extra = {"ansible_ssh_private_key_file": str(controller.rig.key_with_mode(0o644))}

    error = failure(controller.play("check-fleet", "h3", extra=extra).report)

    assert error.code is ErrorCode.SSH_AUTH_FAILED
    assert "chmod 600" in error.hint


def test_a_changed_host_key_is_refused_with_the_way_to_accept_it(controller: Controller) -> None:
    """A machine that shows another key than before is not entered, and the commands to accept it are named."""
    host = controller.rig["h3"]
    host.change_host_key()
    try:
        error = failure(controller.play("check-fleet", "h3").report)
    finally:
        controller.rig.reset([host])

    assert error.code is ErrorCode.HOST_KEY_UNKNOWN
    assert f"ssh-keyscan -H {host.address}" in error.hint


def test_a_power_cut_and_a_full_disk_in_mid_install_do_not_stop_the_others(controller: Controller) -> None:
    """One machine is done, the dead one is named, the full one keeps nothing half-made; a later run repairs both."""
    rig = controller.rig
    rig.reset()
    rig["h3"].fill_disk("/opt", 300)

    def pull_the_plug(event: Event) -> None:
        if isinstance(event, HostStarted) and event.host == "h2" and "Build the release" in event.task:
            rig["h2"].power_cut()

    controller.on_event = pull_the_plug
    try:
        report = controller.play("deploy-hives", extra={"rbee_base_install_min_mb": 1}).report
        left = rig["h3"].inside("find", "/opt/rbee/releases", "-mindepth", "1", check=False).stdout
        assert not rig["h2"].is_on
    finally:
        rig["h2"].boot()
        rig["h3"].empty_disk("/opt")

    verdicts = {name: host.verdict for name, host in report.hosts.items()}
    assert verdicts == {"h1": Verdict.DONE, "h2": Verdict.UNREACHABLE, "h3": Verdict.FAILED}
    causes = {name: host.cause.code for name, host in report.hosts.items() if host.cause is not None}
    # Its address is still there without it, so that a connection is either lost or refused.
    assert causes.pop("h2") in (ErrorCode.SSH_TIMEOUT, ErrorCode.SSH_REFUSED)
    assert causes == {"h3": ErrorCode.DISK_FULL}
    assert left == ""
    again = Controller(rig, controller.home).play("deploy-hives").report
    assert again.succeeded, {name: host.cause for name, host in again.hosts.items()}
    assert [name for name, host in again.hosts.items() if host.changed] == ["h2", "h3"]


def test_one_dead_machine_is_named_and_the_others_are_asked(controller: Controller) -> None:
    """A machine that was dead before the run is unreachable; what was asked of the others is done."""
    dead = controller.rig["h2"]
    dead.cut_cable()
    try:
        report = controller.play("check-fleet").report
    finally:
        dead.mend_cable()

    verdicts = {name: host.verdict for name, host in report.hosts.items()}
    assert verdicts == {"h1": Verdict.DONE, "h2": Verdict.UNREACHABLE, "h3": Verdict.DONE}
    assert failure(report).code is ErrorCode.SSH_TIMEOUT
