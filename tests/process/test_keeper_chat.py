"""`rbee-keeper chat`: a conversation on a terminal, and questions from a pipe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.machine import BIN, Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.terminal import Terminal
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=50) as machine:
        machine.tables["models"]["bee"] = f"file://{write_gguf(machine.root / 'model.gguf')}"
        yield machine


def test_a_conversation_on_a_terminal(machine: Machine) -> None:
    """Each question is asked with all that was said; Ctrl-C stops an answer and not the program; Ctrl-D ends."""
    queen = QueenProcess(machine)
    with Terminal(machine, "rbee-keeper", "chat", "bee", "--max-tokens", "5") as screen:
        at = screen.shows("> ", after=screen.shows("/help lists commands"))
        screen.types("What do bees eat?\n")
        at = screen.shows("5 tokens, the first after", after=at)
        screen.types("/set max_tokens 500\n")
        at = screen.shows("max_tokens is 500.", after=at)
        before = screen.types("And wasps?\n")
        eventually(lambda: len(screen.text) > before + 80, within=10, because="the answer is written")
        screen.interrupt()
        at = screen.shows("Stopped.", after=at)
        eventually(lambda: queen.get("/v2/status")["tasks_running"] == 0, within=5, because="its slot is free")
        screen.types("/save talk.json\n")
        at = screen.shows("> ", after=screen.shows("Saved 4 messages", after=at))
        said = json.loads((machine.root / "talk.json").read_text())
        assert [message["role"] for message in said] == ["user", "assistant", "user", "assistant"]
        screen.types("half a question")
        at = screen.shows("half a question", after=at)
        screen.interrupt()
        screen.shows("> ", after=at)
        screen.types("\x04")
        assert screen.ended() == 0
        assert "Traceback" not in screen.text


def test_lines_that_are_pasted_are_one_question(machine: Machine) -> None:
    """A terminal marks what is pasted: its lines are asked together, once Enter is pressed."""
    QueenProcess(machine)
    with Terminal(machine, "rbee-keeper", "chat", "bee", "--max-tokens", "3") as screen:
        at = screen.shows("> ", after=screen.shows("/help lists commands"))
        screen.types("\x1b[200~def hum():\n    return 1\n\x1b[201~")
        at = screen.shows("return 1", after=at)
        screen.types("\n")
        at = screen.shows("3 tokens, the first after", after=at)
        screen.types("/save talk.json\n")
        screen.shows("Saved 2 messages", after=at)
        said = json.loads((machine.root / "talk.json").read_text())
    assert said[0] == {"role": "user", "content": "def hum():\n    return 1"}


def test_what_cannot_be_done_is_said_and_the_conversation_goes_on(machine: Machine) -> None:
    """An unknown command, a setting that is none, a model that is not there: nothing of what was said is lost."""
    QueenProcess(machine)
    lines = ["/sytem x", "/set temprature 1", "/set seed x", "/retry", "/model wasp", "/frob", "Hi", "/undo", "/undo"]
    ran = machine.run("rbee-keeper", "chat", "bee", "--max-tokens", "3", stdin="\n".join(lines))
    assert ran.code == 0, ran.stderr
    told = ran.stderr
    for words in (
        "There is no command /sytem; did you mean /system? See /help.",
        "temprature cannot be set; did you mean temperature? See /help.",
        "'x' is no number for seed.",
        "Nothing was asked yet.",
        "'wasp' is not a model reference",
        "There is no command /frob. See /help.",
        "3 tokens",
        "Forgotten. 0 answers are left.",
    ):
        assert words in told, told
    assert ran.stdout.strip()


def test_from_a_pipe_only_answers_are_on_stdout(machine: Machine) -> None:
    """Each line is a question, and lines between quotes are one; a queen that was started for it ends with it."""
    ran = machine.run(
        "rbee-keeper", "--quiet", "chat", "bee", "--max-tokens", "2", stdin='one\n"""\ntwo\nthree\n"""\nfo\\\nur\n'
    )
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 3
    assert machine.processes() == []


def test_bytes_that_are_no_text_are_marked_and_the_conversation_goes_on(machine: Machine) -> None:
    """They stand as the mark of Unicode in what is asked and saved."""
    QueenProcess(machine)
    ran = subprocess.run(
        [BIN / "rbee-keeper", "chat", "bee", "--max-tokens", "2"],
        input=b"caf\xe9?\n/save talk.json\n",
        env=machine.environ(),
        cwd=machine.root,
        capture_output=True,
        check=False,
        timeout=60 * slowness(),
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads((machine.root / "talk.json").read_text())[0]["content"] == "caf\ufffd?"


def test_from_a_pipe_a_failure_is_the_end(machine: Machine) -> None:
    """Nobody is there who could say something else: the error is that of the command, with what to do next."""
    (machine.root / "model.gguf").unlink()
    ran = machine.run("rbee-keeper", "chat", "bee", stdin="one\ntwo\n")
    assert ran.code == 1
    assert ran.stderr.count("does not exist") == 1
    assert "Next: Check the path" in ran.stderr
    assert machine.processes() == []
