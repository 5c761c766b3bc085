"""What a foreign grammar or template may take of a worker, with the fake engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.test_worker_compat import CHAT, chat, chunks
from tests.support.worker import worker

pytestmark = pytest.mark.process


def test_a_grammar_that_fails_ends_its_own_request_only(tmp_path: Path) -> None:
    """A grammar that fails while the answer is written is a 400, in mid-stream an error event; other streams go on."""
    with worker(tmp_path, "--slots", "2", fake={"length": 30, "tokens_per_s": 30, "grammar_fails_after": 3}) as it:
        it.until_idle()
        with it.http.stream("POST", CHAT, json=chat(stream=True)) as other:
            lines = other.iter_lines()
            next(lines)
            refused = it.http.post(CHAT, json=chat(grammar='root ::= "a"'))
            *_, last = chunks(it, CHAT, chat(grammar='root ::= "a"'))
            rest = list(lines)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "INVALID_REQUEST"
    assert "after 3 tokens" in refused.json()["error"]["message"]
    assert last["error"]["code"] == "INVALID_REQUEST"
    assert rest[-2] == "data: [DONE]"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "2 s"),
        ("{{ messages[0].content.replace('a', messages[0].content) }}", "256 MB"),
    ],
)
def test_a_template_that_overruns_is_named_and_the_worker_goes_on(tmp_path: Path, template: str, reason: str) -> None:
    """A template that takes too long or too much is a 400 that says what to do; raw prompts still work."""
    with worker(tmp_path, fake={"template": template, "length": 3}) as it:
        it.until_idle()
        refused = it.http.post(CHAT, json={"messages": [{"role": "user", "content": "a" * 100_000}]})

        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["code"] == "MODEL_INVALID"
        assert "chat template" in error["message"]
        assert reason in error["message"]
        assert "chat-template-file" in error["hint"]
        assert it.http.post("/v1/completions", json={"prompt": "Bees"}).status_code == 200
