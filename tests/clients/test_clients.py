"""Client programs of others hold a conversation with a tool through a queen; agents do a task in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.clients.conftest import CALLS, CONTEXT, MODEL, Service
from tests.clients.installation import PROGRAMS
from tests.support.waiting import slowness

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]

TALK = "two turns with a tool"
TASK = "a task in an empty folder, and a question about it"
COUNT = CALLS["count_bees"]
FUNCTION: Any = {
    "name": "count_bees",
    "parameters": {
        "type": "object",
        "properties": {"hive": {"type": "string"}, "hours": {"type": "integer", "minimum": 1}},
        "required": ["hive", "hours"],
        "additionalProperties": False,
    },
    "strict": True,
}
THOUGHT, DONE = "A tool can do it.", "It is done."


def run(command: Sequence[str], folder: Path, home: Path, **env: str) -> str:
    """Run a program to its end with an environment of its own, and return what it printed; no registry is reached."""
    home.mkdir(exist_ok=True)
    nowhere = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **nowhere, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * slowness(),
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def events(printed: str) -> list[dict[str, Any]]:
    """Return the lines that are JSON."""
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Make the empty folder of a task."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.mark.client("openai", f"chat: {TALK}")
def test_openai_chat(service: Service) -> None:
    """OpenAI's client puts a call together from a stream, sends its outcome, and goes on after the answer."""
    messages: list[Any] = []
    tools: Any = [{"type": "function", "function": FUNCTION}]
    told: list[str] = []
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as client:
        for turn in ("How many bees?", None, "And now?"):
            if turn is not None:
                messages.append({"role": "user", "content": turn})
            with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
                (choice,) = stream.get_final_completion().choices
            messages.append(choice.message)
            told.append(str(choice.finish_reason))
            for call in choice.message.tool_calls or []:
                assert json.loads(call.function.arguments) == COUNT
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "300"})

    assert told == ["tool_calls", "stop", "stop"]
    assert messages[-1].content == DONE


@pytest.mark.client("openai", f"Responses: {TALK}")
def test_openai_responses(service: Service) -> None:
    """OpenAI's client sends the items of a response back as they came, thoughts with them."""
    items: list[Any] = []
    kinds: list[list[str]] = []
    tool: Any = {"type": "function", **FUNCTION}
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as client:
        for turn in ("How many bees?", None, "And now?"):
            if turn is not None:
                items.append({"role": "user", "content": turn})
            with client.responses.stream(model=MODEL, input=items, tools=[tool], store=False) as stream:
                response = stream.until_done().get_final_response()
            kinds.append([item.type for item in response.output])
            items += response.output
            for item in response.output:
                if item.type == "function_call":
                    assert json.loads(item.arguments) == COUNT
                    items.append({"type": "function_call_output", "call_id": item.call_id, "output": "300"})

    assert kinds == [["reasoning", "message", "function_call"], *[["reasoning", "message"]] * 2]
    assert response.output_text == DONE


@pytest.mark.client("anthropic", f"messages: {TALK}")
def test_anthropic(service: Service) -> None:
    """Anthropic's client puts blocks together from a stream, and sends them back, thoughts with them."""
    messages: list[Any] = []
    kinds: list[list[str]] = []
    tool: Any = {"name": "count_bees", "input_schema": FUNCTION["parameters"]}
    with anthropic.Anthropic(base_url=service.url, api_key=service.key, max_retries=0) as client:
        for turn in ("How many bees?", None, "And now?"):
            if turn is not None:
                messages.append({"role": "user", "content": turn})
            with client.messages.stream(model=MODEL, messages=messages, tools=[tool], max_tokens=500) as stream:
                message = stream.get_final_message()
            kinds.append([block.type for block in message.content])
            messages.append({"role": "assistant", "content": message.content})
            for block in message.content:
                if block.type == "tool_use":
                    assert block.input == COUNT
                    result = {"type": "tool_result", "tool_use_id": block.id, "content": "300"}
                    messages.append({"role": "user", "content": [result]})

    assert kinds == [["thinking", "text", "tool_use"], *[["thinking", "text"]] * 2]
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(
    "interface",
    [
        pytest.param(name, marks=pytest.mark.client("openai-agents", f"{title}: {TALK}, an object, a handoff"))
        for name, title in (("chat", "chat"), ("responses", "Responses"))
    ],
)
def test_openai_agents(service: Service, client_python: Path, tmp_path: Path, interface: str) -> None:
    """An agent of openai-agents calls its tool and ends each turn with the answer; its output type is an object."""
    program = str(PROGRAMS / "openai_agents.py")
    printed = run([str(client_python), "-W", "error", program, interface], tmp_path, tmp_path / "home", **service.env)

    told = json.loads(printed)
    assert [turn["text"] for turn in told["turns"]] == [DONE, DONE]
    assert [turn["results"] for turn in told["turns"]] == [["300"], []]
    assert told["turns"][0]["kinds"]["response.function_call_arguments.delta"] > 0
    assert told["object"] == {"hives": 3}


@pytest.mark.client("ollama", f"Ollama's interface: {TALK}, an object")
def test_ollama(service: Service, client_python: Path, tmp_path: Path) -> None:
    """Ollama's client lists the model, gets thought, text and call apart, and an object of a schema."""
    program = str(PROGRAMS / "ollama_chat.py")
    told = json.loads(run([str(client_python), "-W", "error", program], tmp_path, tmp_path / "home", **service.env))

    called, *answered = told["turns"]
    assert MODEL in told["names"]
    assert (called["thought"].strip(), called["text"].strip(), called["calls"]) == (THOUGHT, "I call it.", [COUNT])
    assert [turn["text"].strip() for turn in answered] == [DONE, DONE]
    assert {turn["reason"] for turn in told["turns"]} == {"stop"}
    assert told["object"] == {"hives": 3}


@pytest.mark.client("ai", f"chat (@ai-sdk/openai-compatible): {TALK}, an object")
def test_ai_sdk(service: Service, node_modules: Path, tmp_path: Path) -> None:
    """The AI SDK tells thought, text and call apart, runs the tool, and makes an object of a zod schema."""
    shutil.copy(PROGRAMS / "ai_sdk.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)

    told = json.loads(run(["node", "ai_sdk.mjs"], tmp_path, tmp_path / "home", **service.env))

    (called, answered), (more,) = (turn["steps"] for turn in told["turns"])
    assert (called["thought"].strip(), called["reason"]) == (THOUGHT, "tool-calls")
    assert (called["calls"], called["results"]) == ([COUNT], [{"bees": 300}])
    assert answered["reason"] == more["reason"] == "stop"
    assert [turn["text"] for turn in told["turns"]] == [DONE, DONE]
    assert told["turns"][0]["kinds"]["tool-input-delta"] > 0
    assert all(step["tokens"] > 0 for turn in told["turns"] for step in turn["steps"])
    assert told["object"] == {"hives": 3}


CODEX = """\
model = "{model}"
model_provider = "rbee"
check_for_update_on_startup = false
analytics.enabled = false

[model_providers.rbee]
name = "rbee"
base_url = "{url}"
env_key = "RBEE_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


@pytest.mark.client("@openai/codex", f"Responses: {TASK}")
def test_codex(service: Service, node_modules: Path, tmp_path: Path, folder: Path) -> None:
    """Codex, with all its features on, has its command run and tells the answer; it goes on in the same thread."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(CODEX.format(model=MODEL, url=f"{service.url}/v1"), encoding="utf-8")
    codex = [str(node_modules / ".bin" / "codex"), "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
    told = [
        events(run([*codex, *more], folder, home, CODEX_HOME=str(home), **service.env))
        for more in (["--json", "Write honey into bees.txt"], ["resume", "--last", "--json", "Is it there?"])
    ]

    assert (folder / "bees.txt").read_text() == "honey\n"
    items = [[event["item"] for event in turn if event["type"] == "item.completed"] for turn in told]
    (command,) = (item for item in items[0] if item["type"] == "command_execution")
    assert (command["exit_code"], command["status"]) == (0, "completed")
    for turn, done in zip(told, items, strict=True):
        assert (done[-1]["type"], done[-1]["text"]) == ("agent_message", DONE)
        assert turn[-1]["type"] == "turn.completed"
        assert turn[-1]["usage"]["reasoning_output_tokens"] > 0


@pytest.mark.client("opencode-ai", f"chat: {TASK}")
def test_opencode(service: Service, node_modules: Path, tmp_path: Path, folder: Path) -> None:
    """opencode has its command run and tells the answer; it goes on in the same session."""
    limit = {"context": CONTEXT, "output": 4096}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{service.url}/v1", "apiKey": service.key},
        "models": {MODEL: {"tool_call": True, "reasoning": True, "limit": limit}},
    }
    config = tmp_path / "opencode.json"
    name = f"rbee/{MODEL}"
    settings = {"model": name, "small_model": name, "share": "disabled", "provider": {"rbee": provider}}
    config.write_text(json.dumps(settings), encoding="utf-8")
    off = ("AUTOUPDATE", "MODELS_FETCH", "DEFAULT_PLUGINS", "LSP_DOWNLOAD")
    env = {"OPENCODE_CONFIG": str(config), **{f"OPENCODE_DISABLE_{what}": "1" for what in off}}
    opencode = [str(node_modules / ".bin" / "opencode"), "run", "--pure", "--auto", "--format", "json"]
    told = [
        events(run([*opencode, *more], folder, tmp_path / "home", **env))
        for more in (["--title", "bees", "Write honey into bees.txt"], ["--continue", "Is it there?"])
    ]

    assert (folder / "bees.txt").read_text() == "honey\n"
    (call,) = (event["part"]["state"] for event in told[0] if event["type"] == "tool_use")
    assert (call["status"], call["metadata"]["exit"]) == ("completed", 0)
    for turn in told:
        texts = [event["part"]["text"] for event in turn if event["type"] == "text"]
        end = turn[-1]["part"]
        assert texts[-1] == DONE
        assert (end["type"], end["reason"]) == ("step-finish", "stop")
        assert end["tokens"]["reasoning"] > 0
