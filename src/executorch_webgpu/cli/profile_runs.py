"""What ``et-webgpu profile`` runs: a program's method, a text of a language model, or several in an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, UnsupportedProgramError

if TYPE_CHECKING:
    from ..runtime import LoadOptions, Program
    from ..runtime.metadata import TensorMetadata
    from ..text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Workload:
    """``once`` does all of it, and may be called again. ``what``: in words.

    ``before``: how often it is to run before it is traced. Steps of an engine differ in size from run to run, and
    drivers compile some at their first dispatch.
    """

    once: Callable[[], None]
    what: str
    before: int = 1


@dataclass(frozen=True)
class TextSizes:
    """``prompt``: tokens of it, or None for ``prompt_tokens`` random ones; ``new_tokens`` follow."""

    prompt: list[int] | None
    prompt_tokens: int
    new_tokens: int


def is_language_model(program: Program) -> bool:
    """Whether its ``forward`` takes tokens and their position, and gives logits."""
    from ..llm.signature import Signature

    try:
        Signature.of(program)
    except UnsupportedProgramError:
        return False
    return True


@contextmanager
def method_workload(
    program: Program, name: str, loading: LoadOptions, given: Sequence[Any], runs: int
) -> Iterator[Workload]:
    """``runs`` calls of a method with the ``given`` values, or, if there are none, with random ones of full size."""
    from .run import fitted_inputs

    with program.load_method(name, loading) as method:
        expected = method.metadata.inputs
        values = fitted_inputs(name, given, expected) if given else random_inputs(expected)

        def once() -> None:
            for _ in range(runs):
                method.execute(values)

        inputs = ", ".join(map(str, expected)) or "no inputs"
        yield Workload(once, f"{runs} calls of {name} with {'given' if given else 'random'} {inputs}")


def random_inputs(expected: Sequence[TensorMetadata]) -> list[Any]:
    """The same values every time, at the largest sizes. Integers are 0, which is a place in whatever they point to."""
    import numpy as np

    random = np.random.default_rng(0)

    def value(tensor: TensorMetadata) -> Any:
        if not tensor.is_tensor:
            return {"int": 0, "bool": True}.get(tensor.dtype, 1.0 if tensor.dtype == "float" else 0)
        dtype = np.dtype(tensor.dtype) if "bfloat" not in tensor.dtype else np.dtype(np.float32)
        if "float" not in tensor.dtype:
            return np.zeros(tensor.max_dims, dtype)
        return random.standard_normal(tensor.max_dims).astype(np.dtype(tensor.dtype))

    return [value(tensor) for tensor in expected]


@contextmanager
def text_workload(program: Program, tokenizer: Tokenizer, loading: LoadOptions, sizes: TextSizes) -> Iterator[Workload]:
    """A prompt that is read and continued, as ``generate`` does."""
    from ..llm.generate import generate
    from ..llm.model import LanguageModel
    from ..llm.sample import SamplingParams

    with LanguageModel(program, loading) as model:
        model.eos_ids = frozenset()  # what is measured has no end
        (prompt,) = _prompts(tokenizer, sizes, model.vocab_size, model.context_len, 1)

        def once() -> None:
            for _ in generate(model, tokenizer, prompt, SamplingParams(max_new_tokens=sizes.new_tokens)):
                pass

        yield Workload(once, f"a prompt of {len(prompt)} tokens, continued by {sizes.new_tokens}")


@contextmanager
def engine_workload(
    program: Program, tokenizer: Tokenizer, loading: LoadOptions, sizes: TextSizes, streams: int
) -> Iterator[Workload]:
    """As many texts at once, in an engine. Their prompts differ, so that none is computed for another."""
    from ..llm.engine import Engine
    from ..llm.sample import SamplingParams
    from ..llm.signature import Signature
    from .prompts import engine_sizes

    signature = Signature.of(program)
    prompts = _prompts(tokenizer, sizes, signature.vocab_size, signature.context_len, 2 * streams)
    rows: Any = engine_sizes(program, prompts[:streams], sizes.new_tokens)
    with Engine(program, loading, **rows) as engine:
        turns = [prompts[:streams], prompts[streams:]]
        params = SamplingParams(max_new_tokens=sizes.new_tokens)

        def once() -> None:
            turns.reverse()  # pages of the turn before do not count
            texts = [engine.submit(tokens, params, end_tokens=()) for tokens in turns[0]]
            for text in texts:
                for _ in text:
                    pass

        many = f"{streams} texts at once, each a prompt of {len(prompts[0])} tokens, continued by {sizes.new_tokens}"
        yield Workload(once, many, 3)


def _prompts(tokenizer: Tokenizer, sizes: TextSizes, vocab_size: int, context_len: int, count: int) -> list[list[int]]:
    from ..llm.measure.speed import random_text

    length = len(sizes.prompt) if sizes.prompt is not None else sizes.prompt_tokens
    if length + sizes.new_tokens > context_len:
        raise InvalidInputError(
            f"{length} tokens of a prompt and {sizes.new_tokens} new ones do not fit the model's context of "
            f"{context_len} tokens; choose fewer"
        )
    if sizes.prompt is not None and count == 1:
        return [sizes.prompt]
    text = random_text(tokenizer, vocab_size, length * count)
    prompts = [text[i * length : (i + 1) * length] for i in range(count)]
    # Prompts that are given begin with a token of their own, so that they share no pages.
    return prompts if sizes.prompt is None else [[random[0], *sizes.prompt[1:]] for random in prompts]
