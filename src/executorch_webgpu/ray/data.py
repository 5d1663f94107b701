"""Whole data sets by Ray Data: each actor of ``map_batches`` has an engine of its own, on an adapter of its own.

A batch's prompts go on at once in the engine. What is wrong with a row becomes its ``error``; the others go on.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
from ray.data.block import BlockAccessor

from ..closing import Closing
from ..errors import ClosedError, DeviceError, Error, InvalidInputError
from ..llm.embedder import Embedder
from ..llm.engine import Engine
from ..llm.generate import Piece
from ..llm.program_tokenizer import tokenizer_of
from ..llm.sample import SamplingParams, sampling_params
from ..llm.stream_text import submit_text
from ..text.chat import encode_chat, user_message
from ..text.tokenizer import Tokenizer
from .sources import name_everywhere, open_source

Task = Literal["generate", "embed"]
ParamsOf = Callable[[dict[str, Any]], SamplingParams]
Made = TypeVar("Made")

ERROR, FINISH_REASON, PROMPT_TOKENS, NEW_TOKENS = "error", "finish_reason", "prompt_tokens", "new_tokens"
OUTPUTS: Mapping[Task, str] = {"generate": "generated_text", "embed": "embedding"}


@dataclass(frozen=True)
class _Job:
    """What all actors of a job do."""

    source: str
    task: Task
    column: str
    output: str
    params: SamplingParams | ParamsOf | None
    chat: bool
    truncate: bool
    tokenizer: str | None
    engine: str | None
    adapter: int | str | None
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def added(self) -> tuple[str, ...]:
        """The columns that rows get."""
        counts = (FINISH_REASON, PROMPT_TOKENS, NEW_TOKENS) if self.task == "generate" else (PROMPT_TOKENS,)
        return (self.output, *counts, ERROR)


def predictor(
    source: str | Path,
    *,
    task: Task = "generate",
    column: str = "prompt",
    output: str | None = None,
    params: SamplingParams | ParamsOf | None = None,
    chat: bool = False,
    truncate: bool = False,
    tokenizer: str | Path | None = None,
    engine: str | None = None,
    adapter: int | str | None = None,
    **sizes: Any,
) -> type[Predictor]:
    """A class for ``Dataset.map_batches``, whose actors add columns to rows: a text, or an embedding, of each.

        rows = ray.data.read_json("prompts.jsonl")
        two = ActorPoolStrategy(size=2)
        rows = rows.map_batches(predictor("model.gguf"), batch_size=64, compute=two, num_gpus=1)
        rows.write_parquet("answers")

    ``source``: a program, or what is converted to one, as commands take it; each machine reads it by that name, or by
    its whole path, if there is such a file or folder here.
    ``column``: where a row has its prompt: a text, a list of messages (with "role" and "content") for the model's chat
    template, or a list of tokens. With ``chat``, a text is the message of a user.
    Of "generate", rows get ``output`` (by default "generated_text"), "finish_reason" ("eos", "stop", "length",
    "context"), "prompt_tokens" and "new_tokens"; of "embed", "embedding" (a list of float32) and "prompt_tokens". All
    get "error": what was wrong with the row, whose other new columns are then null; null where nothing was.
    ``truncate``: texts that are too long for the encoder lose their ends, and have no error.
    ``params``: how texts are drawn, or a function that says so for each row; by default as the model's authors want.
    ``tokenizer``: a file, by default the program's own. ``engine``, ``adapter``: by default the GPU that Ray gives to
    the actor (``num_gpus=1``), or without one the most capable adapter. ``sizes``: what ``Engine`` or ``Embedder``
    takes, such as ``max_rows``, ``max_sequences`` and ``kv_cache_dtype``.
    Up to four batches of a block go on at once in an actor, so that none waits for the longest text of the one before.
    A batch of any ``batch_format`` may come; batches are given back as Arrow tables. Raises InvalidInputError for a
    task that there is not; an actor raises what ``Engine`` and ``find_program`` raise, and for rows that have one of
    these columns already.
    """
    if task not in OUTPUTS:
        raise InvalidInputError(f"there is no task {task!r}; choose {' or '.join(OUTPUTS)}")
    if task == "embed" and (params is not None or chat):
        raise InvalidInputError("an embedding is not drawn and no chat: leave params and chat out")
    if task == "generate" and truncate:
        raise InvalidInputError("only texts that are embedded are truncated: leave truncate out")
    job = _Job(
        name_everywhere(source),
        task,
        column,
        OUTPUTS[task] if output is None else output,
        params,
        chat,
        truncate,
        None if tokenizer is None else name_everywhere(tokenizer),
        engine,
        adapter,
        sizes,
    )
    # Ray makes actors of a class without arguments, and sends one that is made here by value.
    return type("Predictor", (_Generating if task == "generate" else _Embedding,), {"job": job})


class Predictor(Closing):
    """What an actor of a job does; ``predictor`` makes a class of it. Several threads may call one."""

    job: ClassVar[_Job]

    def __init__(self) -> None:
        self._program = open_source(self.job.source, self.job.engine, self.job.adapter)
        try:
            self._model = self._load()
        except BaseException:
            self._program.close()
            raise

    async def __call__(self, batch: Any) -> AsyncIterator[pa.Table]:
        """``predict`` in a thread: Ray Data then has several batches of an actor go on at once."""
        yield await asyncio.to_thread(self.predict, batch)

    def predict(self, batch: Any) -> pa.Table:
        """The batch with the new columns. Raises what broke the engine; what is wrong with a row is its ``error``."""
        table = BlockAccessor.for_block(BlockAccessor.batch_to_block(batch)).to_arrow()
        self._check_columns(table.column_names)
        rows = [_attempt(self._tokens, prompt) for prompt in table[self.job.column].to_pylist()]
        for name, column in zip(self.job.added, self._columns(table, rows), strict=True):
            table = table.append_column(name, column)
        return table

    def close(self) -> None:
        """End all texts, and free the memory."""
        self._model.close()
        self._program.close()

    @abstractmethod
    def _load(self) -> Any:
        """What computes, over the program."""

    @abstractmethod
    def _columns(self, table: pa.Table, rows: Sequence[list[int] | Error]) -> list[pa.Array]:
        """The new columns of rows of tokens, or of what is wrong with them."""

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Tokens of a text."""

    def _check_columns(self, names: Sequence[str]) -> None:
        if self.job.column not in names:
            raise InvalidInputError(
                f"the rows have no column {self.job.column!r}, but {', '.join(names)}: name the prompts' with column="
            )
        if taken := [name for name in self.job.added if name in names]:
            raise InvalidInputError(
                f"the rows have {', '.join(taken)} already: rename, or choose another name with output="
            )

    def _tokens(self, prompt: Any) -> list[int]:
        match prompt:
            case np.ndarray():  # lists of equal lengths come as arrays
                return self._tokens(prompt.tolist())
            case str():
                return self._encode(prompt)
            case [int(), *_]:
                return list(prompt)
        kinds = "a text or a list of tokens" if self.job.task == "embed" else "a text, a list of messages or of tokens"
        raise InvalidInputError(f"a prompt is {kinds} that is not empty; this is {prompt!r:.80}")


class _Generating(Predictor):
    _model: Engine

    def _load(self) -> Engine:
        self._tokenizer = tokenizer_of(self._program, self.job.tokenizer, self.job.source, "with tokenizer=")
        return Engine(self._program, **self.job.sizes)

    def _encode(self, text: str) -> list[int]:
        if self.job.chat:
            return encode_chat(self._tokenizer, user_message(text))
        return self._tokenizer.encode_prompt(text)

    def _tokens(self, prompt: Any) -> list[int]:
        match prompt:
            case [dict(), *_]:
                return encode_chat(self._tokenizer, prompt)
        return super()._tokens(prompt)

    def _columns(self, table: pa.Table, rows: Sequence[list[int] | Error]) -> list[pa.Array]:
        whole = table.to_pylist() if callable(self.job.params) else [{}] * len(rows)
        begun = [_attempt(self._begin, *each) for each in zip(rows, whole, strict=True)]
        ended = [_attempt(_pieces, each) for each in begun]
        texts = [_text(pieces) for pieces in ended]
        kinds = (pa.string(), pa.string(), pa.int64(), pa.int64())
        columns = [pa.array([text and text[i] for text in texts], kind) for i, kind in enumerate(kinds)]
        return [*columns, _errors(ended)]

    def _begin(self, tokens: list[int] | Error, row: dict[str, Any]) -> Iterator[Piece]:
        """Submit a row, whose text then goes on. Raises what is wrong with it."""
        if isinstance(tokens, Error):
            raise tokens
        return submit_text(self._model, self._tokenizer, tokens, self._params(row))

    def _params(self, row: dict[str, Any]) -> SamplingParams:
        params = self.job.params
        if params is None:
            return sampling_params(self._tokenizer.settings.sampling, {})
        return params if isinstance(params, SamplingParams) else params(row)


class _Embedding(Predictor):
    _model: Embedder

    def _load(self) -> Embedder:
        file = self.job.tokenizer
        return Embedder(self._program, None if file is None else Tokenizer.from_file(file), **self.job.sizes)

    def _encode(self, text: str) -> list[int]:
        return self._model.encode(text)

    def _columns(self, table: pa.Table, rows: Sequence[list[int] | Error]) -> list[pa.Array]:
        vectors = _attempt(self._vectors, rows)
        if isinstance(vectors, Error):  # of some row
            vectors = [_attempt(self._vector, row) for row in rows]
        found = [None if isinstance(each, Error) else each for each in vectors]
        counts = [
            min(len(row), self._model.max_tokens) if vector is not None and isinstance(row, list) else None
            for vector, row in zip(found, rows, strict=True)
        ]
        return [pa.array(found, pa.list_(pa.float32())), pa.array(counts, pa.int64()), _errors(vectors)]

    def _vectors(self, rows: Sequence[list[int] | Error]) -> list[Any]:
        """Those of all rows at once. Raises what is wrong with any."""
        tokens = [row for row in rows if not isinstance(row, Error)]
        made = iter(self._model.embed(tokens, truncate=self.job.truncate)) if tokens else iter(())
        return [row if isinstance(row, Error) else next(made) for row in rows]

    def _vector(self, row: list[int] | Error) -> Any:
        if isinstance(row, Error):
            raise row
        return self._model.embed([row], truncate=self.job.truncate)[0]


def _attempt(make: Callable[..., Made], *arguments: Any) -> Made | Error:
    """What is made, or what is wrong with the row that it is made of. Raises what is wrong with the engine."""
    try:
        return make(*arguments)
    except (DeviceError, ClosedError):
        raise
    except Error as error:
        return error


def _pieces(begun: Iterator[Piece] | Error) -> list[Piece]:
    """The whole text. Raises what is wrong with it."""
    if isinstance(begun, Error):
        raise begun
    return list(begun)


def _text(pieces: Sequence[Piece] | Error) -> tuple[str, str, int, int] | None:
    if isinstance(pieces, Error):
        return None
    stats = pieces[-1].stats
    assert stats is not None
    return "".join(piece.text for piece in pieces), stats.finish_reason, stats.prompt_tokens, stats.new_tokens


def _errors(rows: Sequence[Any]) -> pa.Array:
    return pa.array([str(row) if isinstance(row, Error) else None for row in rows], pa.string())
