"""The keeper's smaller commands against a queen: what they ask, print and exit with."""

from __future__ import annotations

import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper import rbee, running
from tests.support.stand_in_queen import StandInQueen, event, refusal
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

WORKER: dict[str, Any] = {
    "worker_id": "worker-1",
    "node": "localhost",
    "url": "http://127.0.0.1:1",
    "model_ref": "package:a/b.gguf",
    "backend": "cpu",
    "device": 0,
    "state": "idle",
    "slots_total": 4,
    "slots_available": 3,
    "last_active_unix": 0.0,
}
HEALTH = {"status": "alive", "state": "idle", "slots_total": 4, "slots_available": 4, "memory_bytes": 2_000_000}
MODEL = {
    "id": "m1",
    "provider": "package",
    "reference": "package:a/b.gguf",
    "local_path": "/m/b.gguf",
    "size_bytes": 94_000_000,
    "quantization": "Q4_1",
    "context_length": 2048,
    "downloaded_at_unix": 1,
    "problem": "vanished",
}
DONE = event("[DONE]")


@pytest.mark.B59
def test_worker_list(queen: StandInQueen) -> None:
    """One plain line a worker; with --json what the queen said; --node is handed on."""
    queen.answer("GET", "/v2/workers/list", {"workers": [WORKER]})

    table, data = rbee("worker", "list"), rbee("workers", "list", "--node", "n 1", "--json")

    assert table.stdout.splitlines() == [
        "ID        NODE       MODEL             ON     STATE  SLOTS FREE  LAST USED",
        "worker-1  localhost  package:a/b.gguf  cpu:0  idle   3 of 4      never",
    ]
    assert data.json == {"workers": [WORKER], "quarantined": [], "unreachable": []}
    assert queen.requests("GET", "/v2/workers/list")[1].path == "/v2/workers/list?node=n+1&limit=500"


def test_a_list_in_pages_is_shown_whole(queen: StandInQueen) -> None:
    """Pages are asked for one after the other, each from where the one before it ended."""
    second = {**WORKER, "worker_id": "worker-2"}
    queen.answer("GET", "/v2/workers/list", {"workers": [WORKER], "unreachable": [], "next": "localhost/worker-1"})
    queen.answer("GET", "/v2/workers/list", {"workers": [second], "unreachable": []})

    data = rbee("worker", "list", "--json")

    assert data.json == {"workers": [WORKER, second], "quarantined": [], "unreachable": []}
    assert queen.requests("GET", "/v2/workers/list")[1].path == "/v2/workers/list?limit=500&after=localhost%2Fworker-1"


@pytest.mark.B09
def test_no_workers(queen: StandInQueen) -> None:
    """An empty list is nothing on stdout, a sentence on stderr, and exit 0."""
    queen.answer("GET", "/v2/workers/list", {"workers": []})

    ran = rbee("worker", "list")

    assert (ran.code, ran.stdout) == (0, "")
    assert "No workers" in ran.stderr


@pytest.mark.B60
def test_worker_health(queen: StandInQueen) -> None:
    """A worker that does not answer is shown with the reason, and makes the exit code 1."""
    rows = [
        {"node": "a", "worker_id": "w1", "health": HEALTH, "error": None},
        {"node": "a", "worker_id": "w2", "health": None, "error": "no answer within 10 s"},
    ]
    queen.answer("GET", "/v2/workers/health", {"workers": rows})

    ran = rbee("worker", "health", "--node", "a")

    assert ran.code == 1
    assert "w1  a     alive" in ran.stdout
    assert "no answer within 10 s" in ran.stdout


@pytest.mark.B61
def test_worker_stop(queen: StandInQueen) -> None:
    """The receipt is printed; a worker that is still there makes the exit code 1."""
    receipt = {"worker_id": "w1", "gone": True, "seconds": 0.25, "memory_returned_bytes": 94_000_000}
    queen.answer("POST", "/v2/workers/shutdown", receipt)
    queen.answer("POST", "/v2/workers/shutdown", {**receipt, "gone": False})

    first, second = rbee("worker", "stop", "--id", "w1"), rbee("workers", "shutdown", "--id", "w1")

    assert (first.code, first.stdout) == (0, "w1 stopped after 0.2 s, 94.0 MB of memory freed\n")
    assert (second.code, "still runs" in second.stdout) == (1, True)
    assert queen.requests("POST", "/v2/workers/shutdown")[0].body == {"worker_id": "w1"}


@pytest.mark.B65
def test_worker_start(queen: StandInQueen) -> None:
    """The worker's id is the only thing on stdout; the story is on stderr."""
    queen.stream(
        "POST",
        "/v2/workers/spawn",
        event({"actor": "hive", "action": "spawn", "human": "Spawning", "emoji": ""}, "narration"),
        event({"loading": {"stage": "loading_to_ram", "layers_loaded": 32, "layers_total": 32}}, "progress"),
        event({"worker": WORKER}),
        DONE,
    )

    ran = rbee("worker", "start", "--node", "localhost", "--model", "demo", "--slots", "2")

    assert (ran.code, ran.stdout) == (0, "worker-1\n")
    assert "Spawning" in ran.stderr
    assert "100%  32 of 32 layers" in ran.stderr
    assert queen.requests("POST", "/v2/workers/spawn")[0].body["slots"] == 2


@pytest.mark.B16
def test_models_pull(queen: StandInQueen) -> None:
    """The download is shown with percent, bytes and speed; the path is the data."""
    steps = [
        {"stage": "queued"},
        {"stage": "downloading", "bytes_downloaded": 50, "bytes_total": 100, "speed_mbps": 8.0},
        {"stage": "complete", "bytes_downloaded": 100, "bytes_total": 100, "local_path": "/m/b.gguf", "fetched": True},
    ]
    queen.answer("GET", "/v2/models/show", MODEL)
    queen.stream("POST", "/v2/models/download", *(event({"download": step}, "progress") for step in steps), DONE)

    plain, data = rbee("models", "pull", "hf:a/b"), rbee("models", "pull", "hf:a/b", "--json")

    assert (plain.code, plain.stdout) == (0, "/m/b.gguf\n")
    assert "50%  50 B of 100 B, 1.0 MB/s" in plain.stderr
    assert [line["event"] for line in data.json_lines] == ["progress", "progress", "progress", "complete"]


def test_models_pull_that_stops_short(queen: StandInQueen) -> None:
    """A stream that breaks off is an error."""
    queen.stream("POST", "/v2/models/download", event({"download": {"stage": "queued"}}, "progress"))

    assert rbee("models", "pull", "hf:a/b", "--json").json_lines[-1]["error"]["code"] == "INVALID_RESPONSE"


def test_models_list_show_and_rm(queen: StandInQueen) -> None:
    """The catalog is listed with what is wrong; an alias is resolved for show and rm."""
    copy = {"node": "localhost", "local_path": "/m/b.gguf", "downloaded_at_unix": 1, "problem": "vanished"}
    queen.answer("GET", "/v2/models/list", {"models": [{**MODEL, "nodes": [copy]}]})
    queen.answer("GET", "/v2/models/show", {**MODEL, "layers": 30})
    queen.answer("DELETE", "/v2/models", None)

    listed, shown, removed = rbee("models", "list"), rbee("models", "show", "demo"), rbee("models", "rm", "demo")

    assert "package:a/b.gguf" in listed.stdout
    assert "localhost [vanished]" in listed.stdout
    assert "94.0 MB (94000000 bytes)" in shown.stdout
    assert "layers" in shown.stdout
    assert removed.code == 0
    assert "SmolLM2" in queen.requests("DELETE", "/v2/models")[0].path


def test_models_list_and_cancel_of_a_download(queen: StandInQueen) -> None:
    """`models list` shows the downloads that run, with the share that is there; `models cancel` ends one by name."""
    row = {
        "reference": "hf:a/b",
        "node": "localhost",
        "stage": "downloading",
        "bytes_downloaded": 20,
        "bytes_total": 100,
    }
    queen.answer("GET", "/v2/models/list", {"models": [MODEL], "downloads": [row]})
    queen.answer("DELETE", "/v2/models/download", None)

    listed, data = rbee("models", "list"), rbee("models", "list", "--json")
    canceled = rbee("models", "cancel", "hf:a/b", "--json")

    assert "downloading 20 %" in listed.stdout
    assert data.json["downloads"] == [row]
    assert canceled.json == {"node": "localhost", "canceled": "hf:a/b"}
    assert "hf%3Aa%2Fb" in queen.requests("DELETE", "/v2/models/download")[0].path


@pytest.mark.B62
def test_logs_are_followed_until_ctrl_c(queen: StandInQueen, tmp_path: Path) -> None:
    """Each line says whose it is; Ctrl-C ends it with 130 and no traceback."""
    queen.stream("GET", "/v2/logs", event({"source": "rbee-hive", "line": "serving"}), hang=True)

    with running("logs", "--node", "localhost", "--follow", folder=tmp_path / "run") as command:
        eventually(
            lambda: command.stdout.read_text() == "rbee-hive  serving\n",
            within=10,
            because="lines come as they are written",
        )
        command.signal(signal.SIGINT)

        assert command.wait(5).code == 130
        assert "Traceback" not in command.stderr.read_text()
    assert "follow=true" in queen.requests("GET", "/v2/logs")[0].path


@pytest.mark.B04
def test_config_list_nodes(queen: StandInQueen) -> None:
    """Nodes are listed with host, status, last connection, install path and backends."""
    node = {
        "node_name": "gpu1",
        "ssh_host": "10.0.0.5",
        "status": "reachable",
        "last_connected_unix": 1,
        "install_path": "/opt/rbee",
        "backends": ["cuda", "cpu"],
        "devices": {"cuda": 2, "cpu": 1},
    }
    queen.answer("GET", "/v2/registry/beehives/list", {"beehives": [node]})

    line = rbee("config", "list-nodes").stdout.splitlines()[1]

    for part in ("gpu1", "10.0.0.5", "reachable", "d ago", "/opt/rbee", "cuda x2, cpu x1"):
        assert part in line


def test_config_remove_node(queen: StandInQueen) -> None:
    """The node is removed through the queen; one that it does not know is an error with a hint."""
    queen.answer("POST", "/v2/registry/beehives/remove", {})
    queen.answer("POST", "/v2/registry/beehives/remove", refusal("NODE_NOT_FOUND", "There is no node named x."), 404)

    assert rbee("config", "remove-node", "--node", "x").code == 0
    assert rbee("config", "remove-node", "--node", "x", "--json").json["error"]["code"] == "NODE_NOT_FOUND"


def test_an_answer_of_another_shape_is_no_crash(queen: StandInQueen) -> None:
    """A queen's answer that lacks its list is INVALID_RESPONSE."""
    queen.answer("GET", "/v2/workers/list", {"things": []})

    assert rbee("worker", "list", "--json").json["error"]["code"] == "INVALID_RESPONSE"


def test_no_queen_names_the_command_that_starts_one() -> None:
    """Without a queen a list says where it looked and what to run."""
    ran = rbee("worker", "list", env={"RBEE_QUEEN_URL": "http://127.0.0.1:9"})

    assert ran.code == 1
    assert "http://127.0.0.1:9" in ran.stderr
    assert "rbee-keeper daemon start" in ran.stderr


@pytest.mark.B44
def test_a_key_that_others_can_read_is_refused(queen: StandInQueen, tmp_path: Path) -> None:
    """A key file of mode 644 is named with the command that corrects it."""
    key = tmp_path / "rbee-home" / "secrets" / "api-key"
    key.parent.mkdir(parents=True)
    key.write_text("secret-key-text\n")
    key.chmod(0o644)

    ran = rbee("worker", "list", env={"RBEE_API_KEY": ""})

    assert ran.code == 1
    assert f"chmod 600 {key}" in ran.stderr
    assert "secret-key-text" not in ran.stderr


@pytest.mark.B56
def test_config_show_names_the_sources_and_masks_the_key(tmp_path: Path) -> None:
    """Each setting is shown with where it came from; the first config file found wins; no key is shown."""
    named, second = tmp_path / "named.toml", tmp_path / "home" / ".config" / "rbee" / "config.toml"
    second.parent.mkdir(parents=True)
    named.write_text('queen_url = "http://127.0.0.1:1111"\n')
    second.write_text('queen_url = "http://127.0.0.1:2222"\n')
    env = {"HOME": str(tmp_path / "home"), "RBEE_API_KEY": "very-secret"}

    first = rbee("config", "show", "--json", env={**env, "RBEE_CONFIG": str(named)})
    other = rbee("config", "show", "--json", env=env)

    assert first.json["queen_url"] == {"value": "http://127.0.0.1:1111", "source": f"{named}:1"}
    assert other.json["queen_url"]["value"] == "http://127.0.0.1:2222"
    assert first.json["api_key"] == {"value": "********", "source": "RBEE_API_KEY"}
    assert "very-secret" not in first.stdout + first.stderr


def test_config_check_names_key_file_and_line(tmp_path: Path) -> None:
    """An unknown key ends with 1 and is named with its file and line; nothing runs on with it."""
    file = tmp_path / "config.toml"
    file.write_text("\n\nquen_url = 'x'\n")

    checked = rbee("config", "check", str(file))
    used = rbee("worker", "list", env={"RBEE_CONFIG": str(file)})

    for ran in (checked, used):
        assert ran.code == 1
        assert f"{file}:3: unknown key 'quen_url'" in ran.stderr


def test_config_check_asks_the_daemons(tmp_path: Path) -> None:
    """A wrong key in a daemon's table is found too, by the daemon's own check."""
    file = tmp_path / "config.toml"
    file.write_text("[hive]\nprot = 9200\n")

    ran = rbee("config", "check", str(file), "--json")

    assert (ran.code, ran.json["error"]["code"]) == (1, "CONFIG_INVALID")
    assert f"{file}:2" in ran.stderr
    assert "prot" in ran.stderr


def test_config_check_tells_everything_at_once(tmp_path: Path) -> None:
    """What keeper, daemons and inventory find wrong comes in one run, each with its line, also for scripts."""
    file, hosts = tmp_path / "config.toml", tmp_path / "inventory" / "hosts.yml"
    hosts.parent.mkdir()
    hosts.write_text("rbee_hives:\n  hosts: {h1: {rbee_hive_prot: 1}}\n  vars: {rbee_state_path: /opt/rbee}\n")
    file.write_text(
        f"queen_ulr = 'x'\ninventory = '{hosts.parent}'\n[models]\na = 'hf:a/b@'\nb = 3\n[hive]\nslotz = 1\nslots = 0\n"
        "[queen]\nport = -1\n"
    )

    ran = rbee("config", "check", str(file), "--json")

    error = ran.json["error"]
    places = [(Path(each["file"]).name, each["line"]) for each in (error["details"], *error["details"]["also"])]
    assert places == [*(("config.toml", line) for line in (1, 4, 5, 7, 8, 10)), ("hosts.yml", 2), ("hosts.yml", 3)]
    for line in (1, 4, 5, 7, 8, 10):
        assert f"Error: {file}:{line}: " in ran.stderr
    assert ran.stderr.count("Error: ") == len(places)
    assert ran.code == 1


def test_config_check_demands_nothing_that_a_hive_gives_its_workers(tmp_path: Path) -> None:
    """A table of settings for workers is right without a model and a key, and a wrong value in it has its line."""
    file = tmp_path / "config.toml"
    file.write_text("[worker]\nslots = 2\n")
    right = rbee("config", "check", str(file))
    file.write_text("[worker]\nslots = 0\n")
    wrong = rbee("config", "check", str(file))

    assert right.code == 0, right
    assert wrong.code == 1
    assert f"{file}:2: slots" in wrong.stderr


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """What cannot be written is PERMISSION_DENIED with the path, before anything is started."""
    home = tmp_path / "rbee-home"
    home.mkdir()
    blocked = home / "run"
    blocked.write_text("a file where a folder must be")

    ran = rbee("daemon", "start", "--json", env={"RBEE_QUEEN_URL": "http://127.0.0.1:9"})

    assert (ran.code, ran.json["error"]["code"]) == (1, "PERMISSION_DENIED")
    assert str(blocked) in ran.stderr
    assert stat.S_ISREG(blocked.stat().st_mode)


def test_an_address_with_a_path_that_leads_nowhere_is_told(
    queen: StandInQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the queen has no route below the path of its address, the next step is the address without the path."""
    monkeypatch.setenv("RBEE_QUEEN_URL", f"{queen.url}/bees")

    refused = rbee("worker", "list")

    assert refused.code == 1
    assert f"{queen.url}/bees, has a path. Without a proxy there, write {queen.url}" in refused.stderr
