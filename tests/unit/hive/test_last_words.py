"""What is shown of the log of a worker that crashed."""

from __future__ import annotations

import json

from rbee.hive.workers.last_words import last_words


def line(message: str, **fields: str) -> str:
    return json.dumps({"level": "info", "message": message, **fields})


def test_nobodys_requests_are_in_the_last_words() -> None:
    """Lines about requests are left out and ids removed from the others, whoever reads the error."""
    words = last_words(
        [
            line("request", request_id="task-of-alice", path="/v1/inference"),
            line("request cancelled: the drain timed out", request_id="task-of-alice", trace_id="4bf92f"),
            "ggml: out of memory",
            '{"broken',
        ]
    )

    assert "alice" not in "".join(words)
    assert "4bf92f" not in "".join(words)
    assert [json.loads(words[0])["message"], *words[1:]] == [
        "request cancelled: the drain timed out",
        "ggml: out of memory",
        '{"broken',
    ]


def test_a_long_line_is_cut() -> None:
    """What a library prints may be as long as a prompt."""
    assert len(last_words(["x" * 100_000])[0]) < 5000
