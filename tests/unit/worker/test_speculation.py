"""What is guessed of a stream's next tokens, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.scheduling.speculation import MIN_MATCH, Drafter, Speculation, Stream

LIST = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def trusting() -> Drafter:
    """Give one whose guesses came true so far."""
    drafter = Drafter()
    drafter.record_acceptance(8, 8)
    return drafter


def test_what_followed_before_is_guessed() -> None:
    """The tokens after the last place that agrees with the end are the guess, as many as agree."""
    assert trusting().draft([*LIST, 99, 12, 13, 14], 8) == [15, 16, 17]
    assert trusting().draft([*LIST, 99, 11, 12, 13, 14], 8) == [15, 16, 17, 18]
    assert trusting().draft([*LIST, 99, 11, 12, 13, 14], 2) == [15, 16]


def test_new_text_is_not_guessed() -> None:
    """Nothing is guessed of an end that was not there before, or only by two tokens, or of no text at all."""
    for tokens in (LIST, [*LIST, 99, 12, 13], [], [7], [7, 7, 7]):
        assert Drafter().draft(tokens, 8) == []


def test_the_longest_agreement_goes_first() -> None:
    """A place that agrees by more tokens is taken rather than a later one that agrees by fewer."""
    beginning = [1, 2, 3, 4, 5, 6]
    tokens = [*beginning, 70, 0, 9, 4, 5, 6, 80, 0, *beginning]

    assert Drafter().draft(tokens, 8)[0] == 70


def test_a_loop_goes_on() -> None:
    """What repeats itself up to the end is guessed to go on, further than it has been written."""
    assert trusting().draft([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2], 8) == [1, 2, 1, 2, 1, 2, 1, 2]
    assert trusting().draft([5] * 8, 4) == [5, 5, 5, 5]


def test_halves_of_tokens_do_not_agree() -> None:
    """Tokens are compared whole, whatever their bytes look like."""
    twin = [0x01000000, 0x01, 0x01, 0x01]  # in bytes, the same as itself three bytes later

    assert Drafter().draft([*twin, 0x02000000, 0x0100, 0x0100, 0x0100], 8) == []


def test_guesses_are_as_long_as_the_last_ones_deserve() -> None:
    """A stream begins with short guesses; what comes true doubles the next, what does not halves it, down to one."""
    tokens = [*LIST, 99, *LIST[:9]]
    drafter = Drafter()

    def lengths(*outcomes: float) -> list[int]:
        found = []
        for share in outcomes:
            drafted = len(drafter.draft(tokens, 9))
            found.append(drafted)
            drafter.record_acceptance(drafted, int(drafted * share))
        return found

    assert lengths(1, 1, 1) == [MIN_MATCH, 6, 9]
    assert lengths(0, 0, 0, 0, 0, 0) == [9, 9, 4, 2, 1, 1]
    assert lengths(1, 1, 0.5, 0.5) == [1, 2, 4, 3]


@given(
    tokens=st.lists(st.integers(0, 4), max_size=120),
    steps=st.lists(st.integers(1, 9), max_size=20),
    most=st.integers(1, 20),
)
def test_a_guess_is_what_followed_an_equal_end(tokens: list[int], steps: list[int], most: int) -> None:
    """However a text grows, a guess begins with what came after an earlier place equal to the end, and is bounded."""
    drafter = Drafter()
    size = 0
    for step in steps:
        size += step
        text = tokens[:size]
        draft = drafter.draft(text, most)

        assert draft == Drafter().draft(text, most)
        assert len(draft) <= most
        key = text[-MIN_MATCH:]
        places = [at for at in range(len(text) - MIN_MATCH) if text[at : at + MIN_MATCH] == key]
        assert bool(draft) == bool(places)
        assert not draft or draft[0] in {text[at + MIN_MATCH] for at in places}


def stream(slot: int, tokens: list[int], room: int = 100) -> Stream:
    return Stream(slot, tokens, room)


def test_streams_share_the_drafts() -> None:
    """The drafted tokens of one batch are divided among the streams, and all have the length of the shortest."""
    repeating, another = [*LIST, 99, *LIST[:4]], [*LIST, 99, *LIST[:6]]

    assert Speculation(8).drafts([stream(0, another)]) == {0: [16, 17, 18]}
    assert Speculation(8).drafts([stream(0, repeating), stream(2, another)]) == {0: [14, 15, 16], 2: [16, 17, 18]}
    assert Speculation(5).drafts([stream(0, repeating), stream(2, another)]) == {0: [14, 15], 2: [16, 17]}
    assert Speculation(8).drafts([stream(0, repeating), stream(2, another, 1)]) == {0: [14], 2: [16]}
    assert Speculation(1).drafts([stream(0, repeating), stream(2, another)]) == {}


def test_one_stream_without_a_draft_waits_for_nobody() -> None:
    """Where one stream has no draft no other has one, so that it never waits for a second pass over the weights."""
    assert Speculation(8).drafts([stream(0, [*LIST, 99, *LIST[:4]]), stream(1, LIST)]) == {}
    assert Speculation(8).drafts([]) == {}


@pytest.mark.parametrize(("room", "guessed"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_nothing_is_guessed_beyond_the_end(room: int, guessed: int) -> None:
    """A draft ends where the stream's limit of tokens does."""
    drafts = Speculation(8).drafts([stream(0, [*LIST, 99, *LIST[:4]], room)])

    assert len(drafts.get(0, [])) == guessed


def test_a_slot_begins_anew_with_each_request() -> None:
    """What the stream before has said is no part of the next one's text."""
    speculation = Speculation(8)
    speculation.drafts([stream(0, LIST)])
    speculation.end(0)

    assert speculation.drafts([stream(0, [1, 2, *LIST[:4]])]) == {}
    speculation.end(3)
