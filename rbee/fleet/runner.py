"""Run playbooks through ansible-runner; no other module imports it.

No secret passes through a run: keys are looked up by the roles in files of mode 0600, so neither arguments, nor
environment, nor the artefacts that ansible-runner keeps can show one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.assets import Assets
from rbee.fleet.events import Event, RunError, parse, reason_in
from rbee.fleet.report import Reporter, RunReport

KEPT_RUNS = 10
CANCEL_POLL_S = 0.3
# Variables of the user's environment that no playbook needs; one that ends in _FILE is a path.
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE)S?$")


@dataclass(frozen=True, slots=True)
class PlaybookRun:
    """A run to make: a playbook by name, the inventory, the hosts that it is limited to, and plain variables."""

    playbook: str
    inventory: Path
    limit: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None
    check: bool = False
    diff: bool = False

    def command_line(self, assets: Assets) -> list[str]:
        """Return the equivalent Ansible command."""
        line = ["ansible-playbook", "-i", str(self.inventory), str(assets.playbook(self.playbook))]
        if self.limit:
            line += ["--limit", ",".join(self.limit)]
        for key, value in (self.extra or {}).items():
            line += ["-e", f"{key}={_plain(value)}"]
        return [*line, *(["--check"] if self.check else []), *(["--diff"] if self.diff else [])]

    def shell_command(self, assets: Assets) -> str:
        """Return the command quoted for a shell."""
        return shlex.join(self.command_line(assets))


@dataclass(frozen=True, slots=True)
class RunResult:
    """The report of a run, and the folder of its artefacts."""

    report: RunReport
    artefacts: Path


def run(
    playbook_run: PlaybookRun,
    paths: Paths,
    *,
    hosts: Mapping[str, str],
    ports: Mapping[str, int] | None = None,
    on_event: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> RunResult:
    """Run a playbook to its end and report on every host.

    Args:
        hosts: the requested hosts, each with its address.
        ports: their ports of SSH, where they are not 22.
        on_event: called with each event, in ansible-runner's own thread.
        cancelled: called several times a second; once it returns True, the run is stopped and reported.

    Raises:
        RbeeError: Ansible is not installed, or the state folder cannot be written.
    """
    runner = _library()
    assets = Assets.find()
    playbook = assets.playbook(playbook_run.playbook)
    folder = paths.make(paths.home / "ansible")
    ident = uuid.uuid4().hex[:12]
    reporter = Reporter(hosts)

    def handle(raw: dict[str, Any]) -> bool:
        event = parse(raw)
        if event is not None:
            reporter.handle(event)
            on_event(event)
        # True keeps the event in the artefacts.
        return True

    # Ansible's workers are sessions of their own, which the end of the run does not reach.
    others = set(psutil.Process().children(recursive=True))
    workers: set[psutil.Process] = set()

    def is_cancelled() -> bool:
        if cancelled():
            workers.update(set(psutil.Process().children(recursive=True)) - others)
            return True
        return False

    options = [*(["--check"] if playbook_run.check else []), *(["--diff"] if playbook_run.diff else [])]
    done = runner.interface.init_runner(
        private_data_dir=str(folder),
        ident=ident,
        project_dir=str(playbook.parent),
        playbook=str(playbook),
        inventory=str(playbook_run.inventory.absolute()),
        limit=",".join(playbook_run.limit) or None,
        extravars=dict(playbook_run.extra or {}),
        cmdline=" ".join(options) or None,
        envvars=environment(assets, paths),
        # How often `cancelled` is called while nothing happens.
        settings={"pexpect_timeout": CANCEL_POLL_S},
        suppress_env_files=True,
        quiet=True,
        event_handler=handle,
        cancel_callback=is_cancelled,
    )
    for name in [name for name in done.config.env if _SECRET.search(name)]:
        del done.config.env[name]
    artefacts = folder / "artifacts"
    with _kept(artefacts, ident):
        try:
            done.run()
        finally:
            _kill_workers(workers)
            _drop_environment(artefacts / ident / "command")
        if done.status not in ("successful", "canceled") and not reporter.counted:
            reporter.handle(RunError(_final_output(artefacts / ident)))
    report = reporter.report(canceled=done.status == "canceled", addresses=hosts, ports=ports)
    return RunResult(report, artefacts / ident)


@contextlib.contextmanager
def _kept(artefacts: Path, ident: str) -> Iterator[None]:
    """Remove the oldest artefacts of runs that have ended, and keep others from removing those of this one.

    ansible-runner's own rotation would take away what the run of another command is writing.
    """
    artefacts.mkdir(mode=0o700, exist_ok=True)
    ended = sorted((run for run in artefacts.iterdir() if run.is_dir()), key=_begun)
    for old in ended[: max(0, len(ended) + 1 - KEPT_RUNS)]:
        with contextlib.suppress(OSError), _mark(artefacts, old.name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
            _mark(artefacts, old.name).unlink()
    with _mark(artefacts, ident).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    with contextlib.suppress(OSError):
        _mark(artefacts, ident).unlink()


def _begun(run: Path) -> float:
    try:
        return run.stat().st_mtime
    except OSError:  # another command has just removed it
        return 0.0


def _mark(artefacts: Path, ident: str) -> Path:
    """Return the file that is locked for as long as a run writes."""
    return artefacts / f".{ident}.lock"


def _kill_workers(workers: set[psutil.Process]) -> None:
    """Kill the local processes of a cancelled run; a task that has begun on a machine still runs to its end there."""
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    psutil.wait_procs(workers, timeout=2)


def environment(assets: Assets, paths: Paths) -> dict[str, str]:
    """Return what the environment of Ansible has beyond the keeper's own."""
    return {
        "ANSIBLE_CONFIG": str(assets.config),
        "ANSIBLE_ROLES_PATH": str(assets.roles),
        # ansible-runner turns it off by default.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        # ansible-runner has its own callback built on the user's, which may not be installed here.
        "ANSIBLE_STDOUT_CALLBACK": "default",
        # Ansible refuses to run without UTF-8, and the messages of ssh are read in English.
        "LC_ALL": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",
        # The programs of the environment that this runs in, also where it is not activated.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RBEE_HOME": str(paths.home),
    }


def _drop_environment(command: Path) -> None:
    """Drop the environment that ansible-runner stores beside the command; it may contain secrets."""
    if command.exists():
        kept = json.loads(command.read_text(encoding="utf-8"))
        kept.pop("env", None)
        command.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def _library() -> Any:
    try:
        import ansible_runner.interface
    except ImportError as error:
        raise RbeeError(
            ErrorCode.CONFIG_INVALID,
            "Ansible, which manages other machines, is not installed in the environment of rbee-keeper.",
            hint="pip install 'rbee[fleet]'",
        ) from error
    return ansible_runner


def _final_output(artefacts: Path) -> str:
    """Return the reason of Ansible where it ended before any task."""
    for name in ("stdout", "stderr"):
        file = artefacts / name
        if file.exists() and (text := file.read_text(encoding="utf-8", errors="replace").strip()):
            return reason_in(text)
    return "Ansible ended without any output."


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
