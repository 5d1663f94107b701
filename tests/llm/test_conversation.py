from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from executorch_webgpu import Program, Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm.conversation import Conversation
from executorch_webgpu.llm.generate import GenerationStats, generate
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.text.chat import encode_chat
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.chat_model import write_chat_model
from tests.ops.harness import assert_close
from tests.text.tiny_vocabulary import CHATML

CONTEXT = 256
GREEDY = SamplingParams(max_new_tokens=12)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Runtime.get().load_program(write_chat_model(tmp_path_factory.mktemp("chat"), CONTEXT).program) as program:
        yield program


@pytest.fixture(scope="module")
def fresh(program: Program) -> LanguageModel:
    """A second model, for runs from an empty cache."""
    return LanguageModel(program)


@pytest.fixture
def model(program: Program) -> Iterator[LanguageModel]:
    with LanguageModel(program) as model:
        yield model


def answer(conversation: Conversation, text: str) -> tuple[str, GenerationStats]:
    pieces = list(conversation.reply(text))
    assert pieces[-1].stats is not None
    return "".join(piece.text for piece in pieces), pieces[-1].stats


def interrupted_answer(conversation: Conversation, text: str, pieces: int) -> str:
    with closing(conversation.reply(text)) as reply:
        return "".join(piece.text for piece in itertools.islice(reply, pieces))


def check_last_turn(conversation: Conversation, model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    """The last answer, and the logits it began with, are those of a run from an empty cache."""
    *before, said = conversation.messages
    prompt = encode_chat(bpe, before)
    pieces = list(generate(fresh, bpe, prompt, conversation.params))
    assert said == {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
    assert_close(model.step(prompt[-1], len(prompt) - 1), fresh.prefill(prompt))


def test_a_second_message_computes_only_what_is_new(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, GREEDY, system="Brief.")
    text, first = answer(conversation, "hello")
    assert text.isupper() and len(text) == 12
    assert (first.reused_tokens, first.prefilled_tokens) == (0, first.prompt_tokens)
    assert first.prompt_tokens == len(encode_chat(bpe, conversation.messages[:2]))

    _, second = answer(conversation, "go on")
    # Of the first answer, the last token never ran.
    assert second.reused_tokens == first.prompt_tokens + 11
    assert second.prefilled_tokens == len(encode_chat(bpe, conversation.messages[:4])) - second.reused_tokens
    assert [message["role"] for message in conversation.messages] == ["system", *("user", "assistant") * 2]
    check_last_turn(conversation, model, fresh, bpe)


@pytest.mark.parametrize("pieces", [1, 5, 12])
def test_an_answer_that_is_broken_off_counts_as_far_as_it_was_shown(
    model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer, pieces: int
) -> None:
    conversation = Conversation(model, bpe, GREEDY)
    whole, _ = answer(conversation, "hello")
    conversation.reset()
    text = interrupted_answer(conversation, "hello", pieces)
    assert text == whole[:pieces]
    assert conversation.messages[-1] == {"role": "assistant", "content": text}
    before = len(model.cached_tokens)
    assert before == len(encode_chat(bpe, conversation.messages[:1])) + pieces - 1
    _, stats = answer(conversation, "go on")
    assert stats.reused_tokens == before
    check_last_turn(conversation, model, fresh, bpe)


def test_an_answer_that_the_model_ends(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    whole, _ = answer(Conversation(model, bpe, GREEDY), "hello")
    (end,) = bpe.encode(whole[6])
    ending = Tokenizer(bpe.backend, replace(bpe.settings, eos_ids=frozenset({end})))
    conversation = Conversation(model, ending, GREEDY)
    text, first = answer(conversation, "hello")
    assert (text, first.finish_reason) == (whole[: whole.index(whole[6])], "eos")
    _, second = answer(conversation, "go on")
    assert second.reused_tokens == first.prompt_tokens + first.new_tokens
    check_last_turn(conversation, model, fresh, ending)


def test_a_message_without_any_answer_is_taken_back(model: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, GREEDY)
    assert interrupted_answer(conversation, "hello", 0) == ""
    assert conversation.messages == []


def test_the_next_message_ends_an_answer(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, GREEDY)
    unfinished = conversation.reply("hello")
    shown = next(unfinished).text + next(unfinished).text
    answer(conversation, "go on")
    assert list(unfinished) == []
    assert [message["content"] for message in conversation.messages[:3]] == ["hello", shown, "go on"]
    check_last_turn(conversation, model, fresh, bpe)


@pytest.mark.parametrize("seconds", [0.0, 0.013, 0.047, 0.09, 0.101, 0.11, 0.2])
def test_ctrl_c_at_any_moment(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer, seconds: float) -> None:
    """In the middle of a GPU step as well: the model goes on, and the cache holds what it says."""
    conversation = Conversation(model, bpe, SamplingParams(max_new_tokens=CONTEXT))
    interrupt = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    shown = ""
    with pytest.raises(KeyboardInterrupt):
        interrupt.start()
        for piece in conversation.reply("hello"):
            shown += piece.text
            time.sleep(0.0005)  # lest a fast GPU be done before
        interrupt.join()
    if cached := model.cached_tokens:
        assert_close(model.prefill(cached[-1:], len(cached) - 1), fresh.prefill(cached))
    conversation.params = GREEDY
    answer(conversation, "go on")
    # A piece may be given away and not have arrived.
    recorded = "".join(message["content"] for message in conversation.messages[1:-2])
    assert recorded.startswith(shown) and len(recorded) - len(shown) <= 1
    check_last_turn(conversation, model, fresh, bpe)


@pytest.mark.slow
def test_a_full_context_drops_the_oldest_turns(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, SamplingParams(max_new_tokens=30), system="Brief.")
    turns = 0
    while True:
        before = conversation.messages
        text, stats = answer(conversation, f"message {turns}")
        turns += 1
        if conversation.dropped_turns:
            break
        assert stats.reused_tokens > 0 or turns == 1
    dropped = conversation.dropped_turns
    assert 1 <= dropped < turns - 1
    said = [{"role": "user", "content": f"message {turns - 1}"}, {"role": "assistant", "content": text}]
    assert conversation.messages == [before[0], *before[1 + 2 * dropped :], *said]
    with_one_more = [before[0], *before[1 + 2 * (dropped - 1) :], said[0]]
    assert stats.prompt_tokens <= CONTEXT // 2 < len(encode_chat(bpe, with_one_more))
    assert len(encode_chat(bpe, [*before, said[0]])) + 30 > CONTEXT
    assert stats.reused_tokens == len(bpe.encode("<s>system\nBrief.<|im_end|>\n<s>user\nmessage ", parse_special=True))
    check_last_turn(conversation, model, fresh, bpe)
    answer(conversation, "go on")
    assert conversation.dropped_turns == 0


@pytest.mark.slow
def test_messages_about_as_long_as_the_context(model: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, SamplingParams(max_new_tokens=1000))
    around = len(encode_chat(bpe, [{"role": "user", "content": ""}]))
    longest = CONTEXT - CONTEXT // 4 - around
    answer(conversation, "hello")
    before = conversation.messages
    with pytest.raises(InvalidInputError, match=f"takes {CONTEXT * 3 // 4 + 1} tokens .* leaves {CONTEXT * 3 // 4}"):
        conversation.reply("x" * (longest + 1))
    assert (conversation.messages, conversation.dropped_turns) == (before, 0)
    text, stats = answer(conversation, "x" * longest)
    assert (stats.finish_reason, len(text)) == ("context", CONTEXT // 4 + 1)
    assert conversation.dropped_turns == 1
    assert [message["content"] for message in conversation.messages] == ["x" * longest, text]


def test_a_template_that_refuses_a_message(model: LanguageModel, bpe: Tokenizer) -> None:
    template = "{% if messages[-1].content == 'no' %}{{ raise_exception('say yes') }}{% endif %}" + CHATML
    conversation = Conversation(model, Tokenizer(bpe.backend, replace(bpe.settings, chat_template=template)), GREEDY)
    answer(conversation, "yes")
    before = conversation.messages
    with pytest.raises(InvalidInputError, match="say yes"):
        conversation.reply("no")
    assert conversation.messages == before
    assert answer(conversation, "yes")[1].reused_tokens > 20


def test_a_template_that_refuses_a_system_message(model: LanguageModel, bpe: Tokenizer) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = Tokenizer(bpe.backend, replace(bpe.settings, chat_template=template))
    with pytest.raises(InvalidInputError, match="no system"):
        Conversation(model, tokenizer, GREEDY, system="Brief.")
    conversation = Conversation(model, tokenizer, GREEDY)
    answer(conversation, "hello")
    with pytest.raises(InvalidInputError, match="no system"):
        conversation.set_system("Brief.")
    assert conversation.system is None and len(conversation.messages) == 2


def test_a_template_that_shortens_earlier_answers(model: LanguageModel, fresh: LanguageModel, bpe: Tokenizer) -> None:
    """Such as one that leaves out thoughts: what the cache holds behind that place is of no use."""
    template = CHATML.replace("message['content']", "(message['content'] if loop.last else message['content'][:3])")
    tokenizer = Tokenizer(bpe.backend, replace(bpe.settings, chat_template=template))
    conversation = Conversation(model, tokenizer, GREEDY)
    _, first = answer(conversation, "hey")
    _, second = answer(conversation, "hey")
    assert second.reused_tokens == first.prompt_tokens + 3
    check_last_turn(conversation, model, fresh, tokenizer)


def test_no_chat_template(model: LanguageModel, spm: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match="no chat template"):
        Conversation(model, spm, GREEDY)


def test_beginning_anew(model: LanguageModel, bpe: Tokenizer) -> None:
    conversation = Conversation(model, bpe, GREEDY, system="Brief.")
    first = answer(conversation, "hello")
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "Brief."}]
    again = answer(conversation, "hello")
    assert again[0] == first[0]
    assert again[1].prefilled_tokens == 1  # the whole prompt is in the cache, and its last token always runs
    conversation.reply("hello")
    conversation.set_system("Long.")
    assert conversation.messages == [{"role": "system", "content": "Long."}]
    assert answer(conversation, "hello")[0] != first[0]
    conversation.set_system(None)
    assert (conversation.system, conversation.messages) == (None, [])
