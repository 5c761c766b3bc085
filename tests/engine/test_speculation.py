"""Guessing ahead with the real model: the text is the same, in fewer steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.tasks import Sampling
from rbee.worker.chat.rendering import Chat
from rbee.worker.engine import llama_load
from rbee.worker.engine.guidance import handle
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.protocol import EngineOptions, Grammar
from rbee.worker.generation import Event, Finished, Generation, TextWithLogprobs, TokenLogprob
from rbee.worker.scheduling.batcher import Batcher, Delivery
from rbee.worker.scheduling.slots import StepPlan
from rbee.worker.text.constraint import json_answer
from rbee.worker.text.sampling import build_chain
from tests.support.models import smollm2_path

pytestmark = pytest.mark.engine
SLOTS = 4
MOST_DRAFTED = 16
GREEDY = Sampling(temperature=0, repeat_penalty=1)
# Low enough for a list to be repeated, whatever a processor's last digits make of it.
CHANCE = Sampling(temperature=0.3, top_k=40, repeat_penalty=1.02, presence_penalty=0.1)
# A batch of several rows rounds differently from one of a single row, so that of two tokens which the model finds
# nearly equally likely the other may be chosen. Further apart than this the rounding never brings them.
TIE = 0.05
PLACES = (("bee", "hive"), ("wasp", "nest"), ("ant", "hill"), ("fox", "den"), ("owl", "tree"), ("fish", "pond"))
LIST = "\n".join(f"{number}. The {name} lives in the {place}." for number, (name, place) in enumerate(PLACES, 1))
REPEATING = "Write a poem about bees in which each line begins with 'The bee'."
QUESTIONS = (f"Repeat this list exactly:\n{LIST}", REPEATING, "What is honey?", "Tell me a long story about a bee.")


class Counting:
    """The engine, with its steps counted."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.engine = engine
        self.steps = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def step(self, plan: StepPlan) -> list[int] | None:
        self.steps += 1
        return self.engine.step(plan)


@dataclass
class Answer:
    """What a generation gave."""

    generation: Generation
    events: list[Event]

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [score for event in self.events if isinstance(event, TextWithLogprobs) for score in event.logprobs]

    @property
    def text(self) -> str:
        return "".join(event.text if isinstance(event, TextWithLogprobs) else str(event) for event in self.events[:-1])

    @property
    def ending(self) -> Finished:
        ending = self.events[-1]
        assert isinstance(ending, Finished)
        return ending


@pytest.fixture(scope="module", name="engine")
def _engine() -> Iterator[LlamaEngine]:
    fields = EngineOptions(
        smollm2_path(), Backend.CPU, 0, SLOTS, context=1024, threads=1, batch_tokens=127, draft_tokens=MOST_DRAFTED
    )
    engine = llama_load.load(fields, lambda _share, _layers: True)
    yield engine
    engine.close()


def run(
    engine: LlamaEngine,
    questions: Sequence[str],
    sampling: Sampling = GREEDY,
    *,
    speculate: int,
    limit: int = 50,
    grammar: Grammar | None = None,
    stops: Sequence[str] = (),
) -> tuple[list[Answer], int]:
    """Answer questions at once, from empty caches; give the answers and the number of steps."""
    counting = Counting(engine)
    answers: dict[str, Answer] = {}

    def deliver(delivery: Delivery) -> None:
        for generation, event in delivery:
            answers[generation.request_id].events.append(event)
        if all(answer.events and isinstance(answer.events[-1], Finished) for answer in answers.values()):
            batcher.stop()

    for slot in range(SLOTS):
        engine.truncate(slot, 0)
    batcher = Batcher(counting, SLOTS, prompt_batch=128, deliver=deliver, speculate=speculate)  # type: ignore[arg-type]
    for number, question in enumerate(questions):
        generation = Generation(
            str(number),
            engine.tokenize(chat(engine, question), special=True),
            limit=limit,
            chain=build_chain(sampling, 7, grammar=grammar),
            seed=7,
            stops=stops,
            logprobs=2,
        )
        answers[generation.request_id] = Answer(generation, [])
    for answer in answers.values():
        batcher.submit(answer.generation)
    batcher.run()
    batcher.table.check_invariants()
    return list(answers.values()), counting.steps


def chat(engine: LlamaEngine, question: str) -> str:
    facts = engine.facts
    assert facts.chat_template is not None
    template = Chat(facts.chat_template, begin=facts.begin_text, end=facts.end_text)
    return str(template.render({"messages": [{"role": "user", "content": question}]})["prompt"])


def assert_same(plain: Answer, drafted: Answer) -> None:
    """Two greedy answers are equal, or part where the model itself finds both tokens equally likely."""
    if plain.text == drafted.text:
        assert plain.ending.total_tokens == drafted.ending.total_tokens
        return
    for ours, theirs in zip(plain.logprobs, drafted.logprobs, strict=False):
        if ours.piece != theirs.piece:
            likeliest = [score for _, score in ours.top]
            assert likeliest[0] - likeliest[1] < TIE, (plain.text, drafted.text)
            return
        assert ours.logprob == pytest.approx(theirs.logprob, abs=TIE)
    raise AssertionError(f"one answer ended before the other: {plain.text!r}, {drafted.text!r}")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_greedy_answer_is_the_same(engine: LlamaEngine, question: str) -> None:
    """At temperature 0 an answer is the same with guesses and without, whether they come true or not."""
    (plain,), _ = run(engine, [question], speculate=0)
    (drafted,), _ = run(engine, [question], speculate=MOST_DRAFTED)

    assert_same(plain, drafted)


@pytest.mark.parametrize(
    ("questions", "accepted"), [(QUESTIONS, False), ((REPEATING,) * 3, True)], ids=["different", "equal"]
)
def test_answers_side_by_side_are_the_same(engine: LlamaEngine, questions: tuple[str, ...], accepted: bool) -> None:
    """Several streams at once answer as they do without drafts; drafts are made only where all streams have one."""
    plain, _ = run(engine, questions, speculate=0, limit=40)
    drafted, _ = run(engine, questions, speculate=MOST_DRAFTED, limit=40)

    for one, other in zip(plain, drafted, strict=True):
        assert_same(one, other)
    assert [answer.generation.accepted > 0 for answer in drafted] == [accepted] * len(questions)
    assert [answer.generation.drafted > 0 for answer in drafted] == [accepted] * len(questions)


def test_a_text_that_repeats_itself_takes_fewer_steps(engine: LlamaEngine) -> None:
    """Most guesses come true there, and every one that does saves a step."""
    (drafted,), steps = run(engine, [REPEATING], speculate=MOST_DRAFTED, limit=80)
    one = drafted.generation

    assert one.generated == 80
    assert one.accepted > 20
    assert one.accepted > one.drafted / 2
    assert steps == one.generated - one.accepted


def test_chance_penalties_and_seed_stay_the_same(engine: LlamaEngine) -> None:
    """With a seed and penalties each token is drawn as it would be without guesses: the sampler's state is the same."""
    (plain,), _ = run(engine, [QUESTIONS[0]], CHANCE, speculate=0, limit=80)
    (drafted,), _ = run(engine, [QUESTIONS[0]], CHANCE, speculate=MOST_DRAFTED, limit=80)

    assert drafted.generation.drafted > 0
    assert drafted.text == plain.text


def test_a_grammar_is_obeyed_and_advances_with_what_is_written_only(engine: LlamaEngine) -> None:
    """A guess that the grammar forbids is dropped, and what is written fits the schema as it does without guesses."""
    schema = {
        "type": "array",
        "items": {"type": "object", "properties": {"name": {"enum": ["bee", "ant"]}}, "required": ["name"]},
        "minItems": 6,
        "maxItems": 6,
    }
    question = 'Write a JSON array of six objects like {"name": "bee"}, {"name": "bee"}, {"name": "bee"}.'
    grammar = engine.compile_grammar(handle(json_answer(schema, strict=False).message())["grammar"])

    (plain,), _ = run(engine, [question], speculate=0, grammar=grammar, limit=150)
    (drafted,), _ = run(engine, [question], speculate=MOST_DRAFTED, grammar=grammar, limit=150)

    assert drafted.generation.accepted > 0
    assert len(json.loads(drafted.text)) == 6
    assert_same(plain, drafted)


def test_a_stop_string_within_a_guess_ends_the_text(engine: LlamaEngine) -> None:
    """A stop string that a guess completes ends the answer there, and nothing behind it is given."""
    (whole,), _ = run(engine, [REPEATING], speculate=MOST_DRAFTED, limit=70)
    stop = whole.text[-70:-8]  # longer than what repeats itself, so that it comes only once something has
    (drafted,), _ = run(engine, [REPEATING], speculate=MOST_DRAFTED, stops=[stop], limit=70)

    assert drafted.generation.accepted > 0
    assert drafted.ending.stop == stop
    assert drafted.text == whole.text[: whole.text.find(stop)]


@pytest.mark.parametrize("limit", [44, 45])
def test_the_limit_holds_within_a_guess(engine: LlamaEngine, limit: int) -> None:
    """An answer never has more tokens than were asked for, whatever was guessed."""
    (drafted,), _ = run(engine, [REPEATING], speculate=MOST_DRAFTED, limit=limit)

    assert drafted.generation.accepted > 0
    assert drafted.ending.total_tokens == limit
    assert drafted.ending.finish_reason == "length"
