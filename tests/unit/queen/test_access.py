"""What a key allows, what a client's name means, and how many tokens an answer took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.audit import REFUSALS_A_MINUTE, Audit, subject
from rbee.queen.fleet.model_names import declared_names, resolve_declared
from rbee.queen.keys.access import ADMIN, Client, check_limits, check_model, check_priority
from rbee.queen.registry import Registry
from rbee.queen.relay.stream import StreamObserver
from rbee.queen.relay.token_usage import stream_usage, without_counts
from rbee.queen.scheduling.admission_queue import client_to_displace
from rbee.queen.scheduling.placement import Fleet, SpawnWorker, place
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.usage.ledger import Usage
from tests.unit.queen.fleet import entry, hello, link

GUEST = Client("guest")
NOON = 1_800_014_400
SIGNED = "https://host/m.gguf?X-Amz-Signature=abc"
ALIASES = {"bee": "hf:bees/honey"}


def fleet() -> Registry:
    """Make two nodes: one has models, the other has none."""
    registry = Registry()
    for node in ("n1", "n2"):
        registry.add_node(node, f"http://{node}:9200")
    models = [entry("hf:bees/wax"), entry("file:///models/a.gguf"), entry(SIGNED)]
    registry.apply("n1", hello(link("w1", model="hf:bees/served"), models=models), now=0.0)
    registry.apply("n2", hello(), now=0.0)
    return registry


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("bee", "hf:bees/honey"),
        ("hf:bees/honey", "hf:bees/honey"),
        ("hf:bees/wax", "hf:bees/wax"),
        ("hf:bees/served", "hf:bees/served"),
        ("file:///models/a.gguf", "file:///models/a.gguf"),
        ("file:////models/a.gguf", None),
        ("hf:bees/wax:Q4_K_M", None),
        ("HF:bees/wax", None),
        ("https://host/m.gguf", None),
        ("hf:eve/worm", None),
        ("a", None),
    ],
)
def test_a_client_means_what_is_declared_in_exactly_this_spelling(name: str, reference: str | None) -> None:
    """Another spelling of a model would be another copy; the name of several files is none."""
    assert resolve_declared(name, ALIASES, fleet().models) == reference


def test_the_list_of_a_client_has_no_paths_and_no_signatures() -> None:
    """Every listed name can be asked for, and a limited key sees only its own that are there."""
    known = fleet().models
    listed = declared_names(ALIASES, known, None)

    assert {"bee", "hf:bees/wax", "hf:bees/served"} <= set(listed)
    assert not [name for name in listed if "/models/" in name or "Signature" in name]
    assert [name for name in listed if resolve_declared(name, ALIASES, known) is None] == []
    assert list(declared_names(ALIASES, known, {"hf:bees/wax", "wasp"})) == ["hf:bees/wax"]


def test_what_may_not_be_fetched_runs_only_where_it_is() -> None:
    """A node without the file is no place for it, however much memory it has."""
    view = Fleet(fleet())

    decision = place(view, PlacementRequest("hf:bees/wax", may_fetch=False))
    assert isinstance(decision, SpawnWorker)
    assert decision.node == "n1"
    refused = place(view, PlacementRequest("hf:bees/wax", node="n2", may_fetch=False))
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.MODEL_NOT_FOUND
    assert isinstance(place(view, PlacementRequest("hf:bees/wax", node="n2")), SpawnWorker)


def test_a_list_with_an_alias_holds_what_it_stands_for() -> None:
    """The keeper sends the reference: it is the same model, and only that of an alias on the list."""
    limited = Client("guest", models=frozenset({"bee"}))

    check_model(limited, "hf:bees/bee", {"bee": "hf:bees/bee", "other": "hf:bees/wax"})

    with pytest.raises(RbeeError):
        check_model(limited, "hf:bees/wax", {"bee": "hf:bees/bee", "other": "hf:bees/wax"})


def test_a_limited_list_answers_the_same_for_what_is_there_and_what_is_not() -> None:
    """Nobody finds out by asking which other models there are."""
    limited = Client("guest", models=frozenset({"bee"}))
    check_model(limited, "bee", {})
    check_model(GUEST, "anything", {})
    messages = set()
    for name in ("hf:bees/wax", "hf:bees/none"):
        with pytest.raises(RbeeError) as caught:
            check_model(limited, name, {"bee": "hf:bees/bee", "other": "hf:bees/wax"})
        assert caught.value.code is ErrorCode.FORBIDDEN
        messages.add(caught.value.message.replace(name, ""))
    assert len(messages) == 1


def test_a_priority_is_at_most_the_keys() -> None:
    """What is not asked for is 0, or what the key allows if that is less; the operator may all."""
    assert check_priority(GUEST, None) == 0
    assert check_priority(GUEST, -10) == -10
    assert check_priority(Client("idle", max_priority=-5), None) == -5
    assert check_priority(ADMIN, 10) == 10
    with pytest.raises(RbeeError, match="above 0") as caught:
        check_priority(GUEST, 1)
    assert caught.value.code is ErrorCode.FORBIDDEN


def test_limits_refuse_at_the_limit_and_say_when_to_come_back() -> None:
    """Tasks free themselves soon; the tokens of a day do at midnight UTC."""
    limited = Client("guest", max_tasks=2, tokens_per_day=100)

    assert check_limits(limited, tasks=1, tokens_today=99, now=NOON) is None
    assert check_limits(GUEST, tasks=999, tokens_today=10**9, now=NOON) is None
    for tasks, tokens, retry_after in ((2, 0, 1), (0, 100, 43_200)):
        error = check_limits(limited, tasks=tasks, tokens_today=tokens, now=NOON)
        assert error is not None
        assert (error.code, error.retry_after_s) == (ErrorCode.TOO_MANY_REQUESTS, retry_after)


@pytest.mark.parametrize(
    ("places", "client", "gives"),
    [
        ({"many": 10}, "new", "many"),
        ({"many": 10}, "many", None),
        ({"many": 6, "few": 4}, "few", "many"),
        ({"many": 5, "few": 5}, "few", None),
        ({"many": 5, "few": 4}, "few", None),
        ({"a": 1, "b": 1}, "new", None),
        ({}, "new", None),
    ],
)
def test_who_has_too_many_places_gives_one(places: dict[str, int], client: str, gives: str | None) -> None:
    """Only a client that keeps at least as many as the other gets, so that no exchange is turned back."""
    assert client_to_displace(places, client) == gives


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_the_counts_of_a_whole_answer_follow_it(cut: int) -> None:
    """However it comes, its client gets the answer alone; text in it that looks like counts is not taken for them."""
    answer = b'{"text": "' + b"bees " * 20 + b'\\n: usage 0 0 0 0\\n\\n"}'
    observer, whole = StreamObserver(), answer + b"\n: usage 7 3 5 2500\n\n"

    relayed = observer.feed_whole(whole[:cut]) + observer.feed_whole(whole[cut:]) + observer.end_whole()

    assert (relayed, observer.usage) == (answer, Usage(1, 7, 3, 5, 2500))


def test_a_whole_answer_without_counts_is_relayed_as_it_is() -> None:
    """What is no inference, such as a list of tokens, has none."""
    observer = StreamObserver()

    relayed = observer.feed_whole(b'{"tokens": [1, 2]}') + observer.end_whole()

    assert (relayed, observer.usage) == (b'{"tokens": [1, 2]}', Usage(1))


def test_the_tokens_of_a_stream_are_in_comments_that_no_client_sees() -> None:
    """The last count is the whole one; a stream that is cut off has the prompt's and what was relayed."""
    first, end = b": usage 7 0 0 0\n\ndata: {}\n\n", b": usage 7 3 5 2500\n\ndata: [DONE]\n\n"
    forged = b'data: {"content":"\\n: usage 0 0 0 0\\n\\n"}\n\n'

    assert stream_usage(first, forged + end, 6) == Usage(1, 7, 3, 5, 2500)
    assert stream_usage(first, forged, 4) == Usage(1, 7, 0, 4)
    assert stream_usage(
        b"", b'data: {"done":true,"total_tokens":5,"prompt_tokens":7,"cached_tokens":3,"device_ms":2.5}\n\n', 5
    ) == Usage(1, 7, 3, 5, 2500)
    assert without_counts(first) == b"data: {}\n\n"
    assert without_counts(end) == b"data: [DONE]\n\n"
    assert without_counts(forged) == forged


def test_refusals_are_written_so_often_and_no_more(tmp_path: Path) -> None:
    """A flood is bounded for each client, and the next minute's first line says how many were left out."""
    clock = [float(NOON)]
    audit = Audit(tmp_path / "audit.log", inference=lambda _: False, now=lambda: clock[0])

    def refuse(client: str) -> None:
        state = {"client": client, "error": RbeeError(ErrorCode.FORBIDDEN, "It needs the right 'operate'.")}
        audit.note({"method": "GET", "path": "/v2/logs", "state": state, "client": None}, 403)

    for second in range(100):
        clock[0] = NOON + second / 10
        refuse("")
    refuse("eve")
    clock[0] = NOON + 60
    refuse("")
    clock[0] = NOON + 61
    refuse("")
    audit.close()

    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["who"] for line in lines] == [None] * REFUSALS_A_MINUTE + ["eve", None, None]
    assert [line.get("left_out_before") for line in lines[-3:]] == [None, 100 - REFUSALS_A_MINUTE, None]


def test_the_audit_notes_what_it_is_about_and_no_secret() -> None:
    """Names of things, short, without what may be signed or secret; a body that is no object is none."""
    body = b'{"name": "attic", "hive_key": "secret", "model": "https://h/m?sig=abc", "hives": ["a", {"b": "secret"}]}'

    assert subject(body, {}) == {"name": "attic", "model": "https://h/m?...", "hives": ["a", "..."]}
    assert subject(b"[1]", {"node": "x" * 500}) == {"node": "x" * 256}
    assert subject(b"no JSON", {}) == {}


def test_an_audit_that_cannot_be_written_is_in_the_log_and_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was done is kept there, with the reason; links are not followed."""
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    audit = Audit(tmp_path / "audit.log", inference=lambda _: False, now=lambda: NOON)
    state = {"client": "operator", "operates": True, "what": {"name": "eve"}}

    audit.note({"method": "POST", "path": "/v2/keys/add", "state": state, "client": ("10.0.0.7", 1)}, 201)

    (record,) = caplog.records
    assert record.message == "audit not written"
    assert "eve" in record.fields["line"]  # type: ignore[attr-defined]
    assert not (tmp_path / "elsewhere").exists()


def test_reading_and_inference_are_no_actions(tmp_path: Path) -> None:
    """The audit is about what changes something, and about refusals; its file begins with the first of them."""
    audit = Audit(tmp_path / "audit.log", inference=lambda path: path == "/v1/chat", now=lambda: NOON)
    state = {"client": "operator", "operates": True}

    for method, path in (("GET", "/v2/keys/list"), ("HEAD", "/metrics"), ("POST", "/v1/chat")):
        audit.note({"method": method, "path": path, "state": dict(state), "client": None}, 200)
    assert not (tmp_path / "audit.log").exists()

    audit.note({"method": "DELETE", "path": "/v2/models", "state": dict(state), "client": None}, 204)
    audit.close()
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
