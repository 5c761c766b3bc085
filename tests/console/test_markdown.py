"""What a model's text becomes on the page, asked of the page's own code in node."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.checkout import ROOT
from tests.support.waiting import slowness

pytestmark = pytest.mark.xdist_group("clients")

PAGE: Final = ROOT / "rbee" / "queen" / "console" / "page"
_SHOW: Final = """
import fs from "node:fs";
import { blocks } from "./markdown.js";
const shown = (node) =>
  Array.isArray(node) ? node.map(shown)
  : node === null || typeof node !== "object" ? String(node)
  : typeof node.type === "string" ? [node.type, ...[node.props.children].flat().map(shown)]
  : ["code block", node.props.language, node.props.text];
process.stdout.write(JSON.stringify(blocks(fs.readFileSync(0, "utf8")).map(shown)));
"""


@pytest.fixture(name="page")
def _page(tmp_path: Path) -> Path:
    if shutil.which("node") is None:
        pytest.skip("console: node is not installed")
    shutil.copytree(PAGE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "show.js").write_text(_SHOW)
    return tmp_path


def shown(page: Path, text: str) -> list[Any]:
    """Give the blocks of a text as lists: the name of an element, then what is in it."""
    done = subprocess.run(
        ["node", page / "show.js"], input=text, capture_output=True, text=True, check=True, timeout=20 * slowness()
    )
    blocks: list[Any] = json.loads(done.stdout)
    return blocks


def test_code_ends_at_the_fence_that_it_began_with(page: Path) -> None:
    """A fence with a language is a line of the code around it; a longer fence holds shorter ones; no end is the end."""
    text = "```md title=x y\n```python\nprint(1)\n```\nafter\n\n````\n```\nin\n```\n````\n~~~\n```\n~~~~\n```c++\nopen"
    assert shown(page, text) == [
        ["code block", "md", "```python\nprint(1)"],
        ["p", "after"],
        ["code block", "", "```\nin\n```"],
        ["code block", "", "```"],
        ["code block", "c++", "open"],
    ]


def test_what_is_no_markdown_of_ours_is_text(page: Path) -> None:
    """HTML, links, pictures and marks without an end stay what the model wrote."""
    text = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) **open `tick"
    assert shown(page, text) == [["p", text]]


@pytest.mark.parametrize(
    "text",
    [
        "```" + " " * 200_000 + "x y`",
        "```" + " " * 200_000 + "`",
        " " * 200_000 + "x",
        "`" * 200_001 + " x",
        "*a" * 20_000,
        "1" * 200_000,
        "- item\n" * 10_000,
        "x" * 1_000_000,
        "-" + " " * 200_000 + "\n",
    ],
    ids=lambda text: f"{text[:4]!r} to {text[-3:]!r}",
)
def test_no_text_keeps_the_page_from_going_on(page: Path, text: str) -> None:
    """What it takes grows with the length of a text and not with its square."""
    began = time.monotonic()
    shown(page, text)
    assert time.monotonic() - began < 5 * slowness()
