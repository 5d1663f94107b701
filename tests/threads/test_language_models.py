"""Texts in several threads: each what it is alone, or refused; never another."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu import ClosedError, InUseError, InvalidInputError, Program, Runtime
from executorch_webgpu.llm import LanguageModel, SamplingParams
from executorch_webgpu.llm.conversation import Conversation
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.generate import generate
from executorch_webgpu.text.chat import encode_chat, user_message
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.chat_model import write_chat_model
from tests.threads.together import ROUNDS, pause, seeds, together

CONTEXT, VOCAB = 256, 200
TAKEN = (ClosedError, InUseError)  # what those get whose sequence another thread has

Text = Callable[[LanguageModel, Tokenizer], Any]  # one way to make a text with a sequence


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Runtime.get().load_program(write_chat_model(tmp_path_factory.mktemp("chat"), CONTEXT).program) as program:
        yield program


@pytest.fixture(scope="module")
def model(program: Program) -> Iterator[LanguageModel]:
    with LanguageModel(program) as model:
        yield model


def drawn(random: Random) -> SamplingParams:
    return SamplingParams(
        random.randint(1, 24), random.choice([0.0, 1.0]), random.choice([0, 5]), seed=random.randrange(99)
    )


def words(random: Random) -> str:
    return "".join(random.choices("helo w12", k=random.choice([1, 3, 8, 40, 90])))


def random_text(random: Random) -> Text:
    """A text by any of the ways: drawn on the GPU, on the host, in a session, by steps of one's own, in a chat."""
    prompt = [random.randrange(VOCAB) for _ in range(random.choice([1, 2, 7, 40, 90]))]
    params, ahead, said = drawn(random), random.choice([None, 0, 1, 3, 8]), [words(random) for _ in range(2)]

    def generated(model: LanguageModel, tokenizer: Tokenizer) -> Any:
        pieces = generate(model, tokenizer, prompt, params, steps_in_flight=ahead)
        return [(piece.text, piece.token) for piece in pieces], model.cached_tokens

    def in_session(model: LanguageModel, _: Tokenizer) -> Any:
        with DecodeSession(model, params, steps_in_flight=ahead or None) as session:
            session.prefill(prompt)
            return list(session), session.finish_reason

    def by_hand(model: LanguageModel, _: Tokenizer) -> Any:
        logits = [model.prefill(prompt)]
        for position in range(len(prompt), len(prompt) + 6):
            logits.append(model.step(int(logits[-1].argmax()), position))
        return [each.tobytes() for each in logits]

    def chat(model: LanguageModel, tokenizer: Tokenizer) -> Any:
        conversation = Conversation(model, tokenizer, params)
        return [[piece.text for piece in conversation.reply(text)] for text in said], conversation.messages

    return random.choice([generated, generated, in_session, by_hand, chat])


def with_own_sequence(model: LanguageModel, tokenizer: Tokenizer, texts: list[Text]) -> list[Any]:
    with model.new_sequence() as sequence:
        return [text(sequence, tokenizer) for text in texts]


# -- a sequence each --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@seeds(6)
def test_sequences_of_one_model(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    threads = random.choice([2, 2, 3, 4])
    texts = [[random_text(random) for _ in range(3)] for _ in range(threads)]
    expected = [with_own_sequence(model, bpe, of_one) for of_one in texts]
    jobs = [lambda of_one=of_one: with_own_sequence(model, bpe, of_one) for of_one in texts]
    assert together(random, jobs) == expected


@pytest.mark.slow
@seeds(1)
def test_models_of_one_program(random: Random, program: Program, bpe: Tokenizer) -> None:
    texts = [[random_text(random) for _ in range(2)] for _ in range(3)]

    def job(index: int) -> list[Any]:
        with LanguageModel(program) as model:
            return [text(model, bpe) for text in texts[index]]

    expected = [job(index) for index in range(3)]
    assert together(random, [lambda index=index: job(index) for index in range(3)]) == expected


@pytest.mark.slow
@settings(max_examples=6 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_texts_that_take_turns_in_one_thread(model: LanguageModel, bpe: Tokenizer, data: st.DataObject) -> None:
    """Several sequences, each computing ahead: a token of one, three of another, a whole text between."""
    random = Random(data.draw(st.integers(0, 2**32), label="seed"))
    count = random.randint(2, 4)
    prompts = [[random.randrange(VOCAB) for _ in range(random.choice([1, 5, 40]))] for _ in range(count)]
    params = [drawn(random) for _ in range(count)]
    ahead = [random.choice([None, 0, 1, 8]) for _ in range(count)]
    between = random_text(random)
    with model.new_sequence() as alone:
        expected = [
            [(p.text, p.token) for p in generate(alone, bpe, prompt, its, steps_in_flight=n)]
            for prompt, its, n in zip(prompts, params, ahead, strict=True)
        ]
        expected_between = between(alone, bpe)

        sequences = [model.new_sequence() for _ in range(count)]
        running = [
            generate(sequence, bpe, prompt, its, steps_in_flight=n)
            for sequence, prompt, its, n in zip(sequences, prompts, params, ahead, strict=True)
        ]
        made: list[list[Any]] = [[] for _ in range(count)]
        left = list(range(count))
        while left:
            which = random.choice(left)
            pieces = list(itertools.islice(running[which], random.choice([1, 1, 3])))
            made[which] += [(piece.text, piece.token) for piece in pieces]
            if not pieces:
                left.remove(which)
            if random.random() < 0.1:
                assert between(alone, bpe) == expected_between
        assert made == expected
        for sequence in sequences:
            sequence.close()


# -- one sequence for all ---------------------------------------------------------------------------------------------


@seeds(8)
def test_one_model_in_several_threads(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    """Whoever is first makes the right text; others are refused, or end it."""
    texts = [random_text(random) for _ in range(3)]
    # Steps of one's own are refused only while another's run, since positions are all that they say; see below.
    texts = [text if text.__name__ != "by_hand" else random_text(Random(1)) for text in texts]
    with model.new_sequence() as sequence:
        expected = [text(sequence, bpe) for text in texts]

        def job(index: int) -> None:
            for _ in range(3):
                try:
                    result = texts[index](sequence, bpe)
                except TAKEN:
                    continue
                assert result[0] == expected[index][0]

        together(random, [lambda index=index: job(index) for index in range(3)])
        assert texts[0](sequence, bpe)[0] == expected[0][0]


@seeds(3)
def test_whole_prompts_in_several_threads(random: Random, model: LanguageModel) -> None:
    """Prefill of a text from its first token on: right, or refused, however many chunks it takes."""
    prompts = [[random.randrange(VOCAB) for _ in range(random.choice([3, 90]))] for _ in range(3)]
    with model.new_sequence() as sequence:
        expected = [sequence.prefill(prompt).tobytes() for prompt in prompts]

        def job(index: int) -> None:
            for _ in range(5):
                try:
                    assert sequence.prefill(prompts[index]).tobytes() == expected[index]
                except InUseError:
                    pause(random)

        together(random, [lambda index=index: job(index) for index in range(3)])


@pytest.mark.parametrize("ahead", [None, 0])
def test_two_texts_over_one_cache(model: LanguageModel, bpe: Tokenizer, ahead: int | None) -> None:
    """In one thread as well: the first one cannot go on, and says so."""
    params = SamplingParams(max_new_tokens=12)
    with model.new_sequence() as sequence:
        first = generate(sequence, bpe, [5, 6, 7], params, steps_in_flight=ahead)
        second = generate(sequence, bpe, [8, 9, 10, 11], params, steps_in_flight=ahead)
        expected = [piece.token for piece in generate(model, bpe, [8, 9, 10, 11], params)]
        next(first)
        begun = [next(second).token]
        with pytest.raises(ClosedError, match="new_sequence"):
            for _ in range(3):
                next(first)
        assert begun + [piece.token for piece in second] == expected


def test_logits_of_a_text_that_another_has_replaced(program: Program, model: LanguageModel) -> None:
    with model.new_sequence() as sequence:
        sequence.full_logits = True  # of the last position only, but the chunks are those of all
        chunks = sequence.logits([7] * 90)
        next(chunks)
        sequence.step(9, 3)
        with pytest.raises(ClosedError, match="new_sequence"):
            next(chunks)


@seeds(2)
def test_logits_in_two_threads(random: Random, model: LanguageModel) -> None:
    """Each chunk goes to one of them."""
    with model.new_sequence() as sequence:
        sequence.full_logits = True
        expected = [rows.tobytes() for rows in sequence.logits(list(range(5, 165)))]
        chunks = sequence.logits(list(range(5, 165)))

        def job() -> list[bytes]:
            taken = []
            while True:
                try:
                    taken.append(next(chunks).tobytes())
                except StopIteration:
                    return taken
                except InUseError:
                    pause(random, 0.002)

        parts = together(random, [job, job])
        assert sorted(parts[0] + parts[1]) == sorted(expected)


def test_a_prefix_that_is_gone_is_computed_again(model: LanguageModel, bpe: Tokenizer) -> None:
    params, prompt = SamplingParams(max_new_tokens=6), [5, 6, 7, 8, 9]
    with model.new_sequence() as sequence:
        expected = [piece.token for piece in generate(sequence, bpe, prompt, params)]
        pieces = generate(sequence, bpe, prompt, params, start=4)
        sequence.prefill([5, 6, 1, 1, 1, 1, 1, 1])
        *tokens, end = pieces
        assert [piece.token for piece in tokens] == expected[:-1]
        assert end.stats is not None and end.stats.reused_tokens == 2


@seeds(4)
def test_a_session_in_two_threads(random: Random, model: LanguageModel) -> None:
    """Each token goes to one of them, in order."""
    params = SamplingParams(60, temperature=1.0, seed=random.randrange(99))
    with model.new_sequence() as sequence, DecodeSession(sequence, params, end_tokens=()) as session:
        session.prefill([1, 2, 3])
        expected = list(session)
        session.prefill([1, 2, 3])

        def job() -> list[tuple[int, int]]:
            taken = []
            while True:
                try:
                    taken.append((len(sequence.cached_tokens), next(session)))
                except StopIteration:
                    return taken
                except InUseError:
                    pause(random, 0.002)

        first, second = together(random, [job, job])
        both = sorted(first + second)
        assert sorted(token for _, token in both) == sorted(expected)
        assert all(_follows([token for _, token in part], expected) for part in (first, second))


@seeds(4)
def test_a_text_in_two_threads(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    params = SamplingParams(40, temperature=1.0, seed=random.randrange(99))
    with model.new_sequence() as sequence:
        expected = [piece.token for piece in generate(sequence, bpe, [1, 2, 3], params)]
        pieces = generate(sequence, bpe, [1, 2, 3], params)

        def job() -> list[int | None]:
            taken = []
            while True:
                try:
                    taken.append(next(pieces).token)
                except StopIteration:
                    return taken
                except InUseError:
                    pause(random, 0.002)

        parts = together(random, [job, job])
        assert len(parts[0] + parts[1]) == len(expected)
        assert all(_follows(part, expected) for part in parts)


@seeds(4)
def test_closing_what_another_thread_uses(random: Random, program: Program, bpe: Tokenizer) -> None:
    model = LanguageModel(program)
    sequence = model.new_sequence()
    texts = [random_text(random) for _ in range(2)]
    expected = [text(model, bpe) for text in texts]
    pieces = generate(sequence, bpe, [1, 2], SamplingParams(100))
    closing_one = random.choice([model.close, sequence.close, pieces.close, model.leave_session])

    def close() -> None:
        pause(random, 0.1)
        closing_one()

    def job(with_model: LanguageModel, index: int) -> None:
        for _ in range(3):
            assert texts[index](with_model, bpe) == expected[index]

    refused = together(
        random,
        [lambda: job(model, 0), lambda: job(model.new_sequence(), 1), lambda: list(pieces), close],
        (ClosedError,),
    )
    if closing_one == sequence.close:
        assert refused[:2] == [None, None]
    sequence.close()
    model.close()


@pytest.mark.slow
@seeds(2)
def test_texts_that_nobody_ends(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    """Generators in cycles end in whatever thread collects them, also one in the middle of a step."""
    texts = [random_text(random) for _ in range(3)]
    expected = with_own_sequence(model, bpe, texts)

    def litter() -> None:
        for _ in range(6):
            sequence = model.new_sequence()
            pieces = generate(sequence, bpe, [1, 2, 3], SamplingParams(50))
            next(pieces)
            cycle: list[Any] = [pieces, sequence]
            cycle.append(cycle)
            del sequence, pieces, cycle
            gc.collect(random.randrange(3))

    result, *_ = together(random, [lambda: with_own_sequence(model, bpe, texts), litter, litter])
    assert result == expected
    gc.collect()


# -- conversations and tokenizers -------------------------------------------------------------------------------------


@seeds(6)
def test_one_conversation_in_several_threads(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    """An answer is that of its messages, whoever has been refused."""
    params = SamplingParams(max_new_tokens=10)
    said = [words(random) for _ in range(3)]
    with model.new_sequence() as sequence, model.new_sequence() as fresh:
        conversation = Conversation(sequence, bpe, params)
        together(random, [lambda text=text: "".join(p.text for p in conversation.reply(text)) for text in said], TAKEN)
        for _ in range(2):
            together(
                random,
                [lambda: list(conversation.reply("hello")), conversation.reset, lambda: conversation.messages],
                TAKEN,
            )
        answer = "".join(piece.text for piece in conversation.reply(said[0]))
        *before, last = conversation.messages
        assert last["content"] == answer
        assert answer == "".join(p.text for p in generate(fresh, bpe, encode_chat(bpe, before), params))


@seeds(3)
def test_conversations_over_one_sequence(random: Random, model: LanguageModel, bpe: Tokenizer) -> None:
    """Each answer is that of its messages, or is refused, or ends with an error."""
    params, said = SamplingParams(max_new_tokens=10), [words(random) for _ in range(3)]
    with model.new_sequence() as sequence, model.new_sequence() as fresh:

        def job() -> None:
            conversation = Conversation(sequence, bpe, params)
            for text in said:
                try:
                    answer = "".join(piece.text for piece in conversation.reply(text))
                except TAKEN:
                    pause(random)
                    continue
                *before, last = conversation.messages
                answers.append((before, answer))
                assert last["content"] == answer

        answers: list[tuple[Any, str]] = []
        together(random, [job, job])
        for before, answer in answers:
            assert answer == "".join(p.text for p in generate(fresh, bpe, encode_chat(bpe, before), params))


def test_a_thread_whose_answer_another_has_ended(model: LanguageModel, bpe: Tokenizer) -> None:
    with model.new_sequence() as sequence:
        conversation = Conversation(sequence, bpe, SamplingParams(max_new_tokens=10))
        answer = conversation.reply("hello")
        shown = next(answer).text
        together(Random(0), [lambda: list(conversation.reply("12"))])
        with pytest.raises(ClosedError, match="another thread"):
            next(answer)
        assert [message["content"] for message in conversation.messages[:3]] == ["hello", shown, "12"]


@pytest.mark.slow
@seeds(6)
def test_one_tokenizer_in_several_threads(random: Random, bpe: Tokenizer, spm: Tokenizer) -> None:
    texts = [words(random) + random.choice(["", "<|im_end|>", "<s>x", "é"]) for _ in range(60)]

    def job(tokenizer: Tokenizer, special: bool) -> list[Any]:
        results: list[Any] = []
        for text in texts:
            ids = tokenizer.encode(text, parse_special=special)
            stream = tokenizer.stream()
            streamed = "".join(map(stream.push, ids)) + stream.finish()
            results.append((ids, tokenizer.decode(ids), streamed, tokenizer.decode(ids, keep_special=True)))
        return results

    def chats() -> list[list[int]]:
        return [encode_chat(bpe, user_message(text, "Brief.")) for text in texts]

    jobs = [lambda: job(bpe, False), lambda: job(bpe, True), lambda: job(spm, False), chats]
    expected = [each() for each in jobs]
    assert together(random, jobs) == expected


def test_messages_of_one_model_at_the_same_time(model: LanguageModel) -> None:
    """Who is refused learns what to do; who was first goes on."""
    with model.new_sequence() as sequence:
        with sequence.use:
            (error,) = together(Random(0), [lambda: sequence.step(1, 0)], (InUseError,))
        assert isinstance(error, InUseError) and "new_sequence()" in str(error)
        with pytest.raises(InvalidInputError):
            sequence.step(1, 1)
        sequence.step(1, 0)


def _follows(part: list[Any], whole: list[Any]) -> bool:
    """Whether all of ``part`` is in ``whole``, in its order."""
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in part)


def test_a_text_may_be_closed_by_another_thread(model: LanguageModel, bpe: Tokenizer) -> None:
    with model.new_sequence() as sequence, closing(generate(sequence, bpe, [1], SamplingParams(20))) as pieces:
        next(pieces)
        together(Random(0), [pieces.close])
        assert list(pieces) == []
