"""Modules stay small enough to read, and say what they are for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, python_files

MOST_LINES = 400
SENTENCE_ENDS = (".", "?", "!", ":")


@pytest.mark.parametrize("path", python_files("rbee", "tests", "tools"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_opens_with_a_sentence(path: Path) -> None:
    """A module has at most 400 lines, and its docstring says first what it is for."""
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""

    assert len(text.splitlines()) <= MOST_LINES
    assert docstring, "no docstring"
    assert docstring.split("\n\n")[0].rstrip().endswith(SENTENCE_ENDS), f"no sentence: {docstring.splitlines()[0]}"
