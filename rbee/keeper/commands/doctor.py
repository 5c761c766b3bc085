"""`doctor`: check what rbee needs on this machine."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand


@click.command(cls=KeeperCommand)
@click.pass_obj
def doctor(flags: Flags, /) -> None:
    """Check what rbee needs on this machine.

    The exit code is 1 if something is missing or wrong.
    """
    from rbee.keeper.doctor import Verdict, run_checks
    from rbee.keeper.session import Session
    from rbee.keeper.ui.errors import AlreadyReportedError

    session = Session(flags)
    findings = run_checks(session.settings)
    if flags.json:
        session.out.data({"checks": [finding._asdict() for finding in findings]})
    else:
        session.out.table(
            ["check", "result", "found"],
            [[finding.check, finding.verdict, finding.found] for finding in findings],
            empty="",
        )
        for finding in findings:
            if finding.advice:
                session.out.say(f"{finding.check}: {finding.advice}")
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        raise AlreadyReportedError
