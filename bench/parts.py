"""The parts of the benchmark: each measures ours and the peer in turns and returns rows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from bench.agent import agent
from bench.cold import cold
from bench.constrained import constrained
from bench.decisions import placement
from bench.fleet import fleet
from bench.host_build import host_build
from bench.load import Round, measure
from bench.long_prompt import long_prompt
from bench.memory import memory
from bench.provisioning import provisioning
from bench.relay import relays
from bench.rows import Row
from bench.servers import free_port, ours, running, theirs
from bench.spare import spare
from bench.speculation import speculation
from bench.steady import queue_full, relay_memory

TOKENS = 100
COMMANDS_A_ROUND = 3


def spawn(rounds: int) -> list[Row]:
    """From the start of the process to a model that answers: our worker and llama-server, in turns."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    # The first of each only warms the page cache.
    for _ in range(rounds + 1):
        for name, launch in (("ours", ours), ("theirs", theirs)):
            with running(launch(4)) as server:
                times[name].append(server.healthy_after_s)
    return [Row("spawn_to_healthy", *_medians(times), "llama-server", "s", "<=1.7")]


def streams(rounds: int, *counts: int) -> list[Row]:
    """Tokens per second in all and time to the first token, at some numbers of streams at once."""
    rows = []
    slots = max(4, *counts)
    with running(ours(slots)) as our_server, running(theirs(slots)) as their_server:
        servers = {"ours": our_server, "theirs": their_server}
        for count in counts:
            results: dict[str, list[Round]] = {"ours": [], "theirs": []}
            for number in range(rounds + 1):
                # Taking turns in both orders, so that neither always runs into the other's wake.
                for name in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                    salt = count * 1000 + number
                    results[name].append(measure(servers[name], streams=count, tokens=TOKENS, salt=salt))
            speed = {name: [one.tokens_per_s for one in taken] for name, taken in results.items()}
            first = {name: [one.first_token_s for one in taken] for name, taken in results.items()}
            rows.append(Row(f"tokens_per_s_{count}", *_medians(speed), "llama-server", "tokens/s", ">=1.0"))
            rows.append(Row(f"first_token_{count}", *_medians(first), "llama-server", "s", "<=1.0"))
    return rows


def command(rounds: int) -> list[Row]:
    """How long the keeper takes to say something, in multiples of the bare interpreter."""
    return [
        Row(
            "keeper_help", *_commands([_program("rbee-keeper"), "--help"], dict(os.environ), rounds), _BARE, "s", "<=8"
        ),
        Row(
            "keeper_version",
            *_commands([_program("rbee-keeper"), "--version"], dict(os.environ), rounds),
            _BARE,
            "s",
            "<=8",
        ),
    ]


def worker_list(rounds: int) -> list[Row]:
    """How long `worker list` takes against a running queen, in multiples of the bare interpreter."""
    keeper = _program("rbee-keeper")
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as name:
        home = Path(name)
        config = home / "config.toml"
        config.write_text(
            f'queen_url = "http://127.0.0.1:{free_port()}"\n\n[queen]\nlocal_hive_port = {free_port()}\n',
            encoding="utf-8",
        )
        own = {key: value for key, value in os.environ.items() if not key.startswith("RBEE_")}
        env = {**own, "RBEE_HOME": str(home), "RBEE_CONFIG": str(config)}
        _run([keeper, "daemon", "start"], env)
        try:
            return [Row("worker_list", *_commands([keeper, "worker", "list"], env, rounds), _BARE, "s", "<=30")]
        finally:
            _run([keeper, "daemon", "stop"], env)


PARTS: dict[str, Callable[[int], Iterable[Row]]] = {
    "command": command,
    "worker-list": worker_list,
    "spawn": spawn,
    "spare": spare,
    "cold": cold,
    "streams": lambda rounds: streams(rounds, 1, 4),
    "memory": memory,
    "streams-many": lambda rounds: streams(rounds, 8, 16),
    "long-prompt": long_prompt,
    "agent": agent,
    "speculation": speculation,
    "constrained": constrained,
    "relay": relays,
    "relay-memory": relay_memory,
    "queue-full": queue_full,
    "decisions": placement,
    "fleet": fleet,
    "provisioning": provisioning,
    "host-build": host_build,
}
# Run when no part is named; the others take long and are asked for by name.
DEFAULT = ("command", "worker-list", "spawn", "spare", "cold", "streams")

_BARE = "python -c pass"


def _commands(arguments: Sequence[str], env: dict[str, str], rounds: int) -> tuple[float, float]:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(COMMANDS_A_ROUND * rounds + 1):
        times["ours"].append(_time(arguments, env))
        times["theirs"].append(_time([sys.executable, "-c", "pass"], env))
    return _medians(times)


def _run(arguments: Sequence[str], env: dict[str, str]) -> None:
    done = subprocess.run(arguments, env=env, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with {done.returncode}: {done.stderr.strip()}")


def _time(arguments: Sequence[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    # With its output read: to wait with a limit and nothing to read looks only after 16, 32, 64 ms.
    subprocess.run(arguments, env=env, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - start


def _medians(taken: dict[str, list[float]]) -> tuple[float, float]:
    """Return the medians of ours and theirs, each without its first, which only warmed up."""
    return median(taken["ours"][1:]), median(taken["theirs"][1:])


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
