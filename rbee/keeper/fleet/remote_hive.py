"""Make sure that the hive of another machine serves before a task goes there; start it if it does not run.

Each step is printed and has its own error: the hive's response over HTTP, the SSH connection, the login, a command,
the round trip, the program, the start, the queen's control channel.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rbee.client.blocking import BlockingClient, split_url
from rbee.client.retry import HTTP_CONNECT, Retries
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.fleet.inventory import known_nodes, open_inventory
from rbee.keeper.fleet.registration import register
from rbee.keeper.session import Session
from rbee.net import is_this_machine

if TYPE_CHECKING:
    from rbee.client.queen import QueenClient
    from rbee.fleet.events import Event
    from rbee.fleet.inventory import Node

SLOW_ROUND_TRIP_MS = 100.0
_FIRST_TRY_S = 2.0
_CONNECT_S = 1.0
_ANSWER_S = 5.0
_CONNECT_AFTER_START_S = 2.0
_CHANNEL_WITHIN_S = 15.0
_POLL_S = 0.1
_PROBES = 3

Say = Callable[[str, str, str], None]
Json = dict[str, Any]


class RemoteHive:
    """The hive of one machine. *say* prints a line: text for a person, action for a script, emoji."""

    def __init__(self, session: Session, queen: QueenClient, name: str, say: Say) -> None:
        self._session = session
        self._queen = queen
        self._name = name
        self._say = say
        # Where a hive must be reachable from: it is the queen that connects to it.
        self._queen_is_here = is_this_machine(split_url(queen.url).hostname or "")
        self.started = False

    def ensure(self) -> None:
        """Wait until it serves and the queen is connected to it; set `started` if it had to be started.

        A node that neither the inventory nor the queen knows is left to the queen, which rejects it.
        Raises RbeeError with the step that failed.
        """
        node = next((each for each in known_nodes(self._session.settings) if each.name == self._name), None)
        view = self._view()
        if view is None:
            if node is None:
                return
            register(self._session.settings, self._queen, [node])
            self._say(f"registered {self._name} from the inventory with the queen", "register", "📒")
        if self._connected_within(_FIRST_TRY_S, until_tried=True):
            return
        url = str((self._view() or {}).get("url") or "")
        if not self._answers(url):
            if node is None:
                raise self._unreachable(url, "and it cannot be started from here: the inventory has no such machine")
            self._start(node)
            self.started = True
        if node is not None:
            # The queen then dials again at once, with the key from the inventory.
            register(self._session.settings, self._queen, [node])
        if self._queen_is_here:
            self._require_answer(url)
        if not self._connected_within(_CHANNEL_WITHIN_S, until_tried=False):
            raise self._without_channel(url)
        self._say(f"hive {self._name}: connected", "hive-ready", "🏠")

    def _view(self) -> Json | None:
        return next(iter(self._queen.hives(self._name)), None)

    def _connected_within(self, limit_s: float, *, until_tried: bool) -> bool:
        """Wait for the queen's channel; with *until_tried* only until its first attempt fails."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            view = self._view() or {}
            if view.get("connected"):
                return True
            if until_tried and view.get("last_error"):
                return False
            time.sleep(_POLL_S)
        return False

    def _answers(self, url: str) -> bool:
        """Return whether the hive responds over HTTP, after retries. Raises RbeeError if it accepts and is silent."""
        try:
            self._health(url, HTTP_CONNECT, _CONNECT_S)
        except RbeeError as error:
            if error.code is not ErrorCode.CONNECTION_TIMEOUT:
                raise
            if "attempts" not in error.details:
                raise self._hangs(url) from error
            return False
        return True

    def _require_answer(self, url: str) -> None:
        """Raise unless the hive, which serves on its own machine, responds from here too."""
        try:
            self._health(url, Retries(()), _CONNECT_AFTER_START_S)
        except RbeeError as error:
            raise self._unreachable(url, "although it runs on its machine") from error

    def _health(self, url: str, retries: Retries, connect_timeout_s: float) -> None:
        waits = 0

        def announce_retry(wait_s: float) -> None:
            nonlocal waits
            waits += 1
            of = len(retries.delays_s)
            human = f"hive {self._name} does not respond at {url}; retry {waits} of {of} in {wait_s * 1000:.0f} ms"
            self._say(human, "retry", "🔁")
            time.sleep(wait_s)

        client = BlockingClient(
            f"the hive on {self._name}",
            url,
            None,
            retries=retries,
            connect_timeout_s=connect_timeout_s,
            sleep=announce_retry,
        )
        client.json("GET", "/v1/health", timeout_s=_ANSWER_S)

    def _start(self, node: Node) -> None:
        """Preflight and start through Ansible. Raises RbeeError SSH_*, HOST_KEY_UNKNOWN, WORKER_BINARY_NOT_FOUND..."""
        from rbee.keeper.fleet.runs import playbook_run, run_playbook

        settings = self._session.settings
        self._say(f"hive {self._name} does not run: preflight over SSH ({node.address})", "preflight", "🩺")
        self._report_round_trip(node)
        plan = playbook_run(settings, "start-hive", open_inventory(settings), [node])
        result = run_playbook(self._session, plan, [node], on_event=self._handle)
        error = result.report.error()
        if error is not None:
            raise error

    def _report_round_trip(self, node: Node) -> None:
        milliseconds = round_trip_ms(node.address, node.port or 22)
        if milliseconds is None:
            # The playbook fails too, with a better message.
            return
        self._say(f"{self._name}: preflight: round trip {milliseconds:.1f} ms", "preflight", "🩺")
        if milliseconds > SLOW_ROUND_TRIP_MS:
            self._session.out.warn(
                f"the connection to {self._name} is slow ({milliseconds:.0f} ms round trip), which delays tokens too."
            )

    def _handle(self, event: Event) -> None:
        from rbee.fleet.events import HostTask, Outcome

        if isinstance(event, HostTask) and event.outcome in (Outcome.OK, Outcome.CHANGED):
            for part, human in _STEPS.items():
                if part in event.task:
                    self._say(f"{self._name}: {human}", "start-hive" if "start" in human else "preflight", "🩺")

    def _unreachable(self, url: str, why: str) -> RbeeError:
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {self._name} does not respond at {url}, {why}.",
            details={"node": self._name, "url": url},
            hint=self._reachable_hint(),
        )

    def _hangs(self, url: str) -> RbeeError:
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {self._name} accepts connections at {url} and does not answer: it hangs.",
            details={"node": self._name, "url": url},
            hint=f"Restart it: rbee-keeper hive stop --node {self._name}; rbee-keeper hive start --node {self._name}",
        )

    def _without_channel(self, url: str) -> RbeeError:
        reason = str((self._view() or {}).get("last_error") or "no reason known")
        details = {"node": self._name, "url": url}
        if "key" in reason:
            return RbeeError(
                ErrorCode.INVALID_API_KEY,
                f"The hive on {self._name} runs, but the queen cannot connect to it: {reason}.",
                details=details,
                hint=f"To renew its key on both sides: rbee-keeper hive install --node {self._name}",
            )
        return RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"The hive on {self._name} runs, but the queen at {self._queen.url} cannot connect to it "
            f"at {url}: {reason}.",
            details=details,
            hint=self._reachable_hint(),
        )

    def _reachable_hint(self) -> str:
        where = "this machine" if self._queen_is_here else "the queen's machine"
        return (
            f"Check that its port is reachable from {where} and that it listens on more than loopback "
            f"(rbee_hive_host). To see its state: rbee-keeper hive status --node {self._name}"
        )


_STEPS = {
    "survey | Survey the machine": "preflight: connected, logged in, commands run",
    "start | Check that the hive program is installed": "preflight: the hive program is installed",
    "start | Start the hive": "started its service",
    "start | Wait until the hive serves": "started: the hive serves",
}


def round_trip_ms(host: str, port: int) -> float | None:
    """Measure the time to open a connection, the best of three; None where it cannot be opened."""
    best: float | None = None
    for _ in range(_PROBES):
        began = time.perf_counter()
        try:
            with socket.create_connection((host, port), timeout=2):
                took = (time.perf_counter() - began) * 1000
        except OSError:
            return None
        best = took if best is None else min(best, took)
    return best
