"""How a run ended: host by host, from its events, with the first cause of each failure."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.fleet.events import Counts, HostTask, Outcome, RunCounted, RunError, parse, reason_in
from rbee.fleet.report import Reporter, RunReport, Verdict


def report(
    *events: HostTask | RunCounted | RunError, hosts: tuple[str, ...] = ("h1",), canceled: bool = False
) -> RunReport:
    """Feed events to a reporter."""
    reporter = Reporter(hosts)
    for event in events:
        reporter.handle(event)
    return reporter.report(canceled=canceled, addresses={"h1": "10.0.0.1"})


def unreachable(message: str) -> RunReport:
    """Report a host that ssh could not reach, with ssh's words."""
    return report(
        HostTask("h1", "look", "rbee_base", Outcome.UNREACHABLE, message), RunCounted({"h1": Counts(unreachable=1)})
    )


@pytest.mark.parametrize(
    ("words", "code", "advice"),
    [
        (
            "Failed to connect to the host via ssh: No ED25519 host key is known for 10.0.0.1 and you have requested "
            "strict checking.\r\nHost key verification failed.",
            ErrorCode.HOST_KEY_UNKNOWN,
            "ssh-keyscan -H 10.0.0.1 >> ~/.ssh/known_hosts",
        ),
        (
            "Failed to connect to the host via ssh: @ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n"
            "Host key verification failed.",
            ErrorCode.HOST_KEY_UNKNOWN,
            "ssh-keygen -R 10.0.0.1",
        ),
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", ErrorCode.SSH_REFUSED, "port"),
        ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", ErrorCode.SSH_TIMEOUT, "address"),
        ("ssh: connect to host 10.0.0.1 port 22: No route to host", ErrorCode.SSH_TIMEOUT, "address"),
        (
            "ssh: Could not resolve hostname nowhere: Name or service not known",
            ErrorCode.SSH_HOST_UNKNOWN,
            "spelling",
        ),
        ("me@10.0.0.1: Permission denied (publickey).", ErrorCode.SSH_AUTH_FAILED, "key"),
        (
            "@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\nPermissions 0644 for 'k' are too open.\n"
            "me@10.0.0.1: Permission denied (publickey).",
            ErrorCode.SSH_AUTH_FAILED,
            "chmod 600",
        ),
    ],
)
def test_what_ssh_says_becomes_a_code_with_advice(words: str, code: ErrorCode, advice: str) -> None:
    """Each way in which a host cannot be reached has its own code, and the next step names the address."""
    cause = unreachable(words).hosts["h1"].cause

    assert cause is not None
    assert cause.code is code
    assert advice in cause.hint


def test_the_port_is_in_the_step_that_accepts_a_host_key() -> None:
    """A machine with another port has its key noted with that port, and a changed key is removed with it."""
    said = {"h1": "Host key verification failed.", "h2": "REMOTE HOST IDENTIFICATION HAS CHANGED!"}
    reporter = Reporter(said)
    for host, words in said.items():
        reporter.handle(HostTask(host, "look", "rbee_base", Outcome.UNREACHABLE, words))
    hosts = reporter.report(
        canceled=False, addresses={"h1": "10.0.0.1", "h2": "10.0.0.2"}, ports={"h1": 2222, "h2": 2222}
    ).hosts

    new, changed = hosts["h1"].cause, hosts["h2"].cause
    assert new is not None
    assert changed is not None
    assert "ssh-keyscan -H -p 2222 10.0.0.1 >>" in new.hint
    assert "ssh-keygen -R '[10.0.0.2]:2222'" in changed.hint
    assert (new.asks_trust, changed.asks_trust) == (True, False)


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ("Task failed: Incorrect sudo password", ErrorCode.SUDO_AUTH_FAILED, "rejects the password"),
        ("Task failed: Missing sudo password", ErrorCode.SUDO_REFUSED, "does not let this user"),
        (
            "Task failed: Timeout (12s) waiting for privilege escalation prompt: ",
            ErrorCode.SUDO_REFUSED,
            "does not let this user",
        ),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNREACHABLE])
def test_a_wrong_password_of_sudo_is_named(words: str, code: ErrorCode, part: str, outcome: Outcome) -> None:
    """What sudo refuses is no failed command and no silent machine."""
    cause = (
        report(HostTask("h1", "look", "r", outcome, words), RunCounted({"h1": Counts(failures=1)})).hosts["h1"].cause
    )

    assert cause is not None
    assert cause.code is code
    assert part in cause.message


def test_a_task_on_the_controller_is_not_blamed_on_the_machine() -> None:
    """What is delegated to this machine, or needs a file of it, fails here, for the host."""
    delegated = {"msg": "HTTP Error 502", "_ansible_delegated_vars": {"ansible_connection": "local"}}
    missing = {"msg": "Could not find or access '/x' on the Ansible Controller."}
    for result in (delegated, missing):
        event = parse({"event": "runner_on_failed", "event_data": {"host": "h1", "task": "Tell", "res": result}})
        assert isinstance(event, HostTask)
        cause = report(event, RunCounted({"h1": Counts(failures=1)})).hosts["h1"].cause

        assert cause is not None
        assert cause.code is ErrorCode.PROVISIONING_FAILED
        assert cause.message.startswith("'Tell' for h1 failed on this machine: ")


def test_a_machine_that_answers_is_not_called_silent() -> None:
    """Ansible's "unreachable" is told as ssh's only where ssh said something."""
    cause = unreachable("Task failed: Failed to create temporary directory: mkdir: Permission denied").hosts["h1"].cause

    assert cause is not None
    assert cause.code is ErrorCode.SSH_COMMAND_FAILED
    assert "Failed to create temporary directory" in cause.message


def test_a_roles_own_words_win_over_ansibles() -> None:
    """A task that fails and is rescued says little; what the role says afterwards is the cause."""
    result = report(
        HostTask("h1", "Restart", "rbee_hive", Outcome.FAILED, "Unable to restart service"),
        HostTask("h1", "Say", "rbee_hive", Outcome.FAILED, "RELEASE_FAILED: the release does not serve"),
        RunCounted({"h1": Counts(failures=1, rescued=1)}),
    )

    error = result.error()
    assert error is not None
    assert (error.code, error.message) == (ErrorCode.RELEASE_FAILED, "the release does not serve")


def test_the_next_step_names_the_machine() -> None:
    """A hint can be typed as it is."""
    missing = HostTask("h1", "Check", "rbee_hive", Outcome.FAILED, "WORKER_BINARY_NOT_FOUND: there is none")
    cause = report(missing, RunCounted({"h1": Counts(failures=1)})).hosts["h1"].cause

    assert cause is not None
    assert "rbee-keeper hive install --node h1" in cause.hint


def test_a_failure_that_was_rescued_is_none() -> None:
    """A host whose failing task was rescued, and that Ansible counts as done, is done."""
    result = report(
        HostTask("h1", "Try", "r", Outcome.FAILED, "no"), RunCounted({"h1": Counts(ok=3, failures=0, rescued=1)})
    )

    assert result.succeeded
    assert result.hosts["h1"].cause is None


def test_every_host_that_was_asked_for_is_reported() -> None:
    """A host that the run never came to is unfinished, and the run has not succeeded."""
    result = report(RunCounted({"h1": Counts(ok=1)}), hosts=("h1", "h2"))

    assert not result.succeeded
    assert result.hosts["h2"].verdict is Verdict.UNFINISHED


def test_several_failures_are_summed_up() -> None:
    """With more than one machine in trouble the error names each with its code."""
    result = report(
        HostTask("h1", "t", "r", Outcome.FAILED, "DISK_FULL: no space"),
        HostTask("h2", "t", "r", Outcome.UNREACHABLE, "Connection refused"),
        RunCounted({"h1": Counts(failures=1), "h2": Counts(unreachable=1), "h3": Counts(ok=1)}),
        hosts=("h1", "h2", "h3"),
    )

    error = result.error()
    assert error is not None
    assert error.code is ErrorCode.PROVISIONING_FAILED
    assert "h1: DISK_FULL; h2: SSH_REFUSED" in error.message


def test_an_interrupted_run_says_how_far_each_host_came() -> None:
    """Ctrl-C ends with the state of every host."""
    result = report(
        HostTask("h1", "t", "r", Outcome.CHANGED),
        RunCounted({"h1": Counts(changed=1)}),
        hosts=("h1", "h2"),
        canceled=True,
    )

    error = result.error()
    assert error is not None
    assert error.code is ErrorCode.CANCELED
    assert "h1 done, h2 unfinished" in error.message


def test_events_of_ansible_runner_become_ours() -> None:
    """What a person would want to know of an event is in it, the failing item of a loop included."""
    raw: dict[str, Any] = {
        "event": "runner_on_failed",
        "event_data": {
            "host": "h1",
            "task": "Check",
            "role": "rbee_base",
            "duration": 0.5,
            "res": {
                "results": [{"failed": False}, {"failed": True, "msg": "CLOCK_SKEW: an hour"}],
                "msg": "one failed",
            },
        },
    }

    assert parse(raw) == HostTask("h1", "Check", "rbee_base", Outcome.FAILED, "CLOCK_SKEW: an hour", seconds=0.5)
    assert parse({"event": "verbose", "stdout": ""}) is None


@pytest.mark.parametrize(
    ("output", "reason", "advice"),
    [
        (
            "ERROR: Config 'DEFAULT_TIMEOUT' from 'env: ANSIBLE_TIMEOUT' has an invalid value: 'abc'\n\n"
            "Traceback (most recent call last):\n  File x\n",
            "Config 'DEFAULT_TIMEOUT' from 'env: ANSIBLE_TIMEOUT' has an invalid value: 'abc'",
            "Correct that variable",
        ),
        (
            "[WARNING]: Error getting vault password file\n[ERROR]: The vault password file /x was not found",
            "The vault password file /x was not found",
            "ANSIBLE_VAULT_PASSWORD_FILE",
        ),
        ("ERROR! Attempting to decrypt but no vault secrets found", "Attempting to decrypt", "ANSIBLE_VAULT"),
    ],
)
def test_a_run_that_reached_no_host_says_why(output: str, reason: str, advice: str) -> None:
    """The last error of Ansible is the reason, once and without its traceback, and the hint is for that reason."""
    event = RunError(reason_in(output))

    error = report(event, event).error()

    assert error is not None
    assert error.message.count(reason) == 1
    assert "Traceback" not in error.message
    assert "WARNING" not in error.message
    assert advice in error.body()["error"]["hint"]


def test_a_machine_whose_turn_did_not_come_is_unfinished() -> None:
    """A rollout that stops at its first machine leaves the others as they were, whatever was well before."""
    waits = {"rbee_hive_rollout": "waits"}

    found = report(
        HostTask("h1", "plan", "rbee_hive", Outcome.OK, facts=waits),
        HostTask("h2", "plan", "rbee_hive", Outcome.OK, facts=waits),
        HostTask("h3", "plan", "rbee_hive", Outcome.OK, facts=waits),
        HostTask("h1", "begin", "", Outcome.OK, facts={"rbee_hive_rollout": "begun"}),
        HostTask("h1", "fail", "rbee_hive", Outcome.FAILED, "RELEASE_FAILED: the release does not serve."),
        HostTask("h3", "end", "rbee_hive", Outcome.OK, facts={"rbee_hive_rollout": "done"}),
        RunCounted({"h1": Counts(failures=1), "h2": Counts(ok=1), "h3": Counts(ok=2)}),
        hosts=("h1", "h2", "h3"),
    )

    assert [host.verdict for host in found.hosts.values()] == [Verdict.FAILED, Verdict.UNFINISHED, Verdict.DONE]
    error = found.error()
    assert error is not None
    assert "Because of that, these were left unchanged: h2." in error.message
