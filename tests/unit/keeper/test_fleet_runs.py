"""How a run over machines is told and summed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.fleet.events import Counts, Event, HostStarted, HostTask, Outcome, RunCounted
from rbee.fleet.report import Reporter
from rbee.fleet.runner import RunResult
from rbee.keeper.fleet.progress import PlaybookProgress
from rbee.keeper.fleet.remote_hive import round_trip_ms
from rbee.keeper.fleet.runs import print_summary
from rbee.keeper.ui.errors import AlreadyReportedError
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output
from tests.support.machine import free_ports

DONE = HostTask("h1", "configure | Render the unit", "rbee_hive", Outcome.CHANGED, path="/etc/x")
BAD = HostTask("h2", "survey | Survey the machine", "rbee_base", Outcome.UNREACHABLE, message="Connection refused")


def result(*events: Event) -> RunResult:
    """Give a run in which h1 is done and h2 cannot be reached."""
    reporter = Reporter(["h1", "h2"])
    everything: list[Event] = [*events, RunCounted({"h1": Counts(ok=1, changed=1), "h2": Counts(unreachable=1)})]
    for event in everything:
        reporter.handle(event)
    return RunResult(reporter.report(canceled=False, addresses={"h1": "10.0.0.1", "h2": "10.0.0.2"}), Path("/runs/1"))


def output(*, json: bool = False) -> Output:
    """Give an output that speaks to pipes."""
    flags = Flags()
    flags.json = json
    return Output(flags)


def test_in_a_pipe_each_machine_and_task_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Skipped tasks and Ansible's own are not told."""
    with PlaybookProgress(output(), ["h1"]) as story:
        story.handle(DONE)
        story.handle(HostTask("h1", "something", "", Outcome.SKIPPED))
        story.handle(HostTask("h1", "Validating arguments against arg spec", "rbee_hive", Outcome.OK))

    assert capsys.readouterr().err == "h1: rbee_hive: configure | Render the unit: changed\n"


def test_the_live_table_shows_how_long_it_takes() -> None:
    """Each row has the time of the run so far, and a task that takes long its own."""
    now = [100.0]
    progress = PlaybookProgress(output(), ["h1", "h2"], clock=lambda: now[0])
    now[0] = 130.0
    progress.handle(DONE)
    progress.handle(HostStarted("h1", "Build the release"))
    now[0] = 192.0

    assert progress.rows() == [
        ["h1", "running", "1", "1", "1:32", "Build the release (1:02)"],
        ["h2", "waiting", "0", "0", "1:32", ""],
    ]


def test_a_failure_is_summed_up_with_its_first_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """Each machine has a line, the failed one its code and task, and the advice comes last."""
    with pytest.raises(AlreadyReportedError):
        print_summary(output(), result(DONE, BAD))

    told = capsys.readouterr()
    assert [line.split()[:2] for line in told.out.splitlines()[1:]] == [["h1", "done"], ["h2", "unreachable"]]
    assert "SSH_REFUSED at 'survey | Survey the machine'" in told.out
    assert "Next:" in told.err
    assert "/runs/1" in told.err


def test_scripts_get_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is one document also after a failure."""
    with pytest.raises(AlreadyReportedError):
        print_summary(output(json=True), result(DONE, BAD))

    document = json.loads(capsys.readouterr().out)
    assert document["succeeded"] is False
    machines = {machine["node"]: machine for machine in document["machines"]}
    assert machines["h1"]["changed"] == ["configure | Render the unit: /etc/x"]
    assert machines["h2"]["error"]["code"] == ErrorCode.SSH_REFUSED


def test_a_machine_that_nobody_reaches_has_no_round_trip() -> None:
    """What cannot be measured is not invented."""
    assert round_trip_ms("127.0.0.1", free_ports(1)[0]) is None
