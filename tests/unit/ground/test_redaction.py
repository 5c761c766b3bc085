"""What is masked in logs and errors."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rbee.observe.redaction import MASK, Redactor, secrets_in_url


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer s3cr3t-key-of-somebody", "s3cr3t"),
        ("token hf_abcdefghijklmnop is wrong", "abcdefgh"),
        ("https://host/x?a=1&X-Amz-Signature=deadbeef&b=2", "deadbeef"),
        ("https://host/x?X-Amz-Credential=AKIA%2F2026&X-Amz-Security-Token=abc/def==", "AKIA"),
        ("https://host/x?X-Amz-Security-Token=abc/def==", "abc/def"),
        ("https://blob/x?sv=2024&sig=AbC%2B1", "AbC"),
        ("https://storage/x?GoogleAccessId=a&Signature=qwertz", "qwertz"),
        ("https://host/x?access_token=qwertz", "qwertz"),
        ("GET https://me:hunter22@host/x", "hunter22"),
        ("GET https://ghtoken@host/x", "ghtoken"),
        ("postgresql+psycopg://rbee:pa/ss@db:5432/rbee", "pa/ss"),
        ("postgres://rbee:pa:s@s@db/rbee", "pa:s@s"),
        ("mysql+pymysql://rbee:hunter@db/rbee", "hunter"),
        ('connection to "host=db user=rbee password=hunter" failed', "hunter"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, secret: str) -> None:
    """Keys, signatures of addresses and passwords of databases are masked wherever they are written."""
    cleaned = Redactor().clean(text)

    assert secret not in cleaned
    assert MASK in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8001/v1/models?node=attic&lines=100",
        '{"message": "request", "path": "/v2/tasks", "tokens": 12, "key": "value"}',
        "ssh://git@github.com/bees/rbee.git",
        "http://127.0.0.1:9200/v1/control",
    ],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    """Ordinary addresses and fields stay readable."""
    assert Redactor().clean(text) == text


def test_the_secrets_of_a_url_are_found_in_every_spelling() -> None:
    """The password of a database is known to the redactor as it is written and as it is meant."""
    assert secrets_in_url("postgresql://u:p%40ssword@db/x?sslpassword=hunter22&a=1") == {
        "p%40ssword",
        "p@ssword",
        "hunter22",
    }
    assert secrets_in_url("postgresql://u:pa:ss@[db/x") == {"pa:ss"}
    assert secrets_in_url("sqlite:////var/lib/rbee/models.db") == set()


secrets = st.text("ab-_/", min_size=8, max_size=12)


@given(st.sets(secrets, max_size=5), st.lists(secrets | st.text("ab-_/ ", max_size=6), max_size=8))
@example({"abababab", "abababababab"}, ["x-abababababab-y"])
def test_no_known_secret_is_left(known: set[str], pieces: list[str]) -> None:
    """Wherever a secret stands in a line, in a longer word or beside another one, it is masked."""
    redactor = Redactor(known)

    cleaned = redactor.clean("".join(pieces))

    assert not [secret for secret in known if secret in cleaned]


def test_a_line_costs_the_same_with_the_keys_of_a_large_fleet() -> None:
    """The time for a line does not grow with the keys that are known."""
    line = '{"message": "task done", "task_id": "task-0123456789ab", "worker_id": "worker-0123456789ab", "tokens": 20}'

    def took(keys: int) -> float:
        redactor = Redactor(f"{number:043d}" for number in range(keys))
        best = []
        for _ in range(5):
            began = time.thread_time()
            for _ in range(200):
                redactor.clean(line)
            best.append(time.thread_time() - began)
        return min(best)

    assert took(20_000) < 3 * took(10)
