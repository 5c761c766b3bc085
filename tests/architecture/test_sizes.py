"""Modules stay small enough to read, and say what they are for."""

from __future__ import annotations

import ast

from tests.support.checkout import ROOT, python_files

MOST_LINES = 400
SENTENCE_ENDS = (".", "?", "!", ":")


def test_no_module_is_too_long_to_read() -> None:
    """A module has at most 400 lines."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files("rbee", "bench", "tests", "tools")
    }

    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_a_module_opens_with_a_sentence() -> None:
    """A module's docstring says first, in a sentence, what the module is for."""
    silent = []
    for path in python_files("rbee", "bench", "tests", "tools"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if not docstring.split("\n\n")[0].rstrip().endswith(SENTENCE_ENDS):
            silent.append(str(path.relative_to(ROOT)))

    assert silent == []
