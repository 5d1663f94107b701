"""A program that is larger than one GPU: its stages run as actors, a GPU each, one behind the other.

A text's step passes through all stages. While a later stage computes a chunk of a prompt, the earlier ones compute
the next chunk; while it computes a token of one text, they compute those of others. Weights are read once for each
text's step: where a program fits on one GPU, an ``Engine`` there, which reads them once for all texts, is faster.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from pickle import PicklingError
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

import numpy as np
import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from ..closing import Closing
from ..errors import ClosedError, DeviceError, Error, InvalidInputError, copied
from ..llm.program_tokenizer import own_tokenizer
from ..llm.prompt import checked_prompt
from ..llm.sample import SamplingParams
from ..llm.stream import Mailbox, Stream, StreamEnd
from ..llm.text_changes import TextChanges
from ..models.library import find_program
from ..runtime import Runtime
from ..text.tokenizer import Tokenizer
from .sources import name_everywhere
from .stage import Stage, stage_names


class StageGoneError(Error):
    """The process of a stage has ended, and with it the caches of all texts."""


@dataclass(eq=False)
class _Text:
    """A text of a pipeline. ``most``: tokens that it may get; ``given``: those that it has."""

    number: int
    prompt: list[int]
    params: SamplingParams
    ends: frozenset[int]
    most: int
    mailbox: Mailbox
    given: int = 0


@dataclass(frozen=True)
class _Token:
    """The next token of a text has been drawn, or could not be."""

    text: _Text
    future: Future[int]


class Pipeline(Closing):
    """The stages of a program that ``convert --stages`` wrote, as actors of the Ray cluster that this is connected to.

        with Pipeline("model.pte", num_gpus=1) as pipeline:
            streams = [pipeline.submit(tokens, SamplingParams(max_new_tokens=100)) for tokens in prompts]
            print([list(stream) for stream in streams])

    ``submit`` is that of an ``Engine``, and so are its streams, so that ``submit_text`` takes a pipeline, too.
    ``source``: the program, by a name that it has on every machine. ``num_gpus``: GPUs of a stage, 1, or 0 for the
    adapter that ``engine`` and ``adapter`` choose, by default the most capable one. ``max_texts``: that run at once,
    each with caches of its own in each stage; others wait. ``tokenizer``: a file, by default the program's own;
    the attribute is None where there is neither. ``actor_options``: more for ``ray.remote``, such as ``resources``.
    ``changes``: as ``Program.load_method`` takes them.
    Raises UnsupportedProgramError for a program that is not in stages, and what a stage raises as it loads.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        num_gpus: float = 0,
        max_texts: int = 8,
        tokenizer: str | Path | None = None,
        engine: str | None = None,
        adapter: int | str | None = None,
        actor_options: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> None:
        if max_texts < 1:
            raise InvalidInputError(f"max_texts is {max_texts}; at least one text must run")
        with Runtime.get(adapter="reference").load_program(find_program(str(source))) as program:
            names = stage_names(program)
            first, last = program.metadata(names[0]), program.metadata(names[-1])
            self.max_tokens, self.vocab_size = first.inputs[0].max_dims[1], last.outputs[0].max_dims[-1]
            self._token_dtype = np.dtype(first.inputs[0].dtype)
            with program.load_method("get_max_context_len") as method:
                (self.context_len,) = method.execute()
            self.eos_ids: frozenset[int] = frozenset()
            if "get_eos_ids" in program.method_names:
                with program.load_method("get_eos_ids") as method:
                    self.eos_ids = frozenset(method.execute())
            self.tokenizer = own_tokenizer(program) if tokenizer is None else Tokenizer.from_file(tokenizer)
        source = name_everywhere(source)
        actor = ray.remote(num_gpus=num_gpus, **actor_options)(Stage)
        self._stages = [actor.remote(source, i, engine, adapter, **changes) for i in range(len(names))]
        self._events: SimpleQueue[_Text | _Token | None] = SimpleQueue()
        self._max_texts, self._numbers = max_texts, count()
        self._waiting: deque[_Text] = deque()
        self._running: set[_Text] = set()
        self._lock = threading.Lock()  # of what follows
        self._over: BaseException | None = None
        try:
            ray.get([stage.ready.remote() for stage in self._stages])
        except BaseException as error:
            self._kill()
            raise _ours(error) from error
        self._thread = threading.Thread(target=self._run, name="executorch-webgpu pipeline", daemon=True)
        self._thread.start()

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self._stages)

    def submit(
        self, tokens: Sequence[int], params: SamplingParams | None = None, *, end_tokens: Collection[int] | None = None
    ) -> Stream:
        """Continue a prompt, as ``Engine.submit`` does: the tokens are those that the whole program gives alone.

        Raises InvalidInputError for a prompt that is empty or longer than the context, for what is no token of the
        vocabulary, for stop strings and log probabilities; ClosedError; and what broke the pipeline.
        """
        params, prompt = params or SamplingParams(), checked_prompt(tokens, self.context_len, self.vocab_size)
        self._check(prompt, params)
        most = min(params.max_new_tokens, self.context_len - len(prompt) + 1)
        ends = frozenset(self.eos_ids if end_tokens is None else end_tokens)
        text = _Text(next(self._numbers), prompt, params, ends, most, Mailbox())
        with self._lock:
            if self._over is not None:
                raise copied(self._over) from self._over
            self._events.put(text)
        return Stream(text.mailbox, self)

    def close(self) -> None:
        """End all texts, with a ClosedError where they are read, and the actors. Closing twice is allowed."""
        self._finish(ClosedError("this pipeline is closed; make another one"))
        self._events.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check(self, prompt: list[int], params: SamplingParams) -> None:
        given = {"stop": params.stop, "logprobs": params.logprobs is not None, "grammar": params.grammar is not None}
        given["prompt_logprobs"] = params.prompt_logprobs is not None
        if asked := [name for name, value in given.items() if value]:
            raise InvalidInputError(f"a pipeline gives tokens only, so leave {' and '.join(asked)} out")
        try:
            cloudpickle.dumps(params)
        except (TypeError, ValueError, PicklingError) as error:
            raise InvalidInputError(f"the parameters are sent to another process, and cannot be: {error}") from error
        TextChanges(params, prompt, self.vocab_size)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Begin texts, and give each its next token, until the pipeline is over."""
        try:
            while (event := self._events.get()) is not None:
                if isinstance(event, _Text):
                    self._waiting.append(event)
                else:
                    self._take(event)
                while self._waiting and len(self._running) < self._max_texts:
                    self._begin(self._waiting.popleft())
        except BaseException as error:  # a stage that is gone, a lost device: nothing can go on
            self._finish(_ours(error))
        finally:
            assert self._over is not None
            texts = [*self._running, *self._waiting]
            while not self._events.empty():
                if isinstance(event := self._events.get(), _Text):
                    texts.append(event)
            for text in texts:
                text.mailbox.finish(None, copied(self._over))
            self._kill()

    def _begin(self, text: _Text) -> None:
        if text.mailbox.cancelled:
            text.mailbox.finish("cancelled")
            return
        self._running.add(text)
        self._stages[-1].begin.remote(text.number, text.prompt, text.params)
        for start in range(0, len(text.prompt), self.max_tokens):
            chunk = text.prompt[start : start + self.max_tokens]
            self._step(text, chunk, start, draws=start + len(chunk) == len(text.prompt))

    def _step(self, text: _Text, tokens: Sequence[int], position: int, *, draws: bool) -> None:
        """Have tokens pass through all stages, which take what comes in the order in which it is submitted."""
        given: Any = np.array([tokens], self._token_dtype)
        for stage in self._stages:
            given = stage.run.remote(text.number, given, position, draws)
        if draws:
            given.future().add_done_callback(lambda future: self._events.put(_Token(text, future)))

    def _take(self, event: _Token) -> None:
        text = event.text
        try:
            token = event.future.result()
        except RayTaskError as error:
            cause = _ours(error)
            if isinstance(cause, DeviceError | ClosedError | StageGoneError):
                raise
            self._end(text, None, cause)  # of this text alone
            return
        if text.mailbox.cancelled:
            self._end(text, "cancelled")
        elif token in text.ends:
            self._end(text, "eos")
        else:
            text.mailbox.put(token)
            text.given += 1
            if text.given < text.most:
                self._step(text, [token], len(text.prompt) + text.given - 1, draws=True)
            else:
                self._end(text, "length" if text.given == text.params.max_new_tokens else "context")

    def _end(self, text: _Text, end: StreamEnd | None, error: BaseException | None = None) -> None:
        self._running.discard(text)
        for stage in self._stages:
            stage.end.remote(text.number)
        text.mailbox.finish(end, error)

    def _finish(self, error: BaseException) -> None:
        """Nothing is submitted any more. Only the first reason counts."""
        with self._lock:
            self._over = self._over or error

    def _kill(self) -> None:
        for stage in self._stages:
            with suppress(RayError):
                ray.kill(stage)


def _ours(error: BaseException) -> BaseException:
    """The error of a stage as it was raised there; one that says so where a stage is gone."""
    if isinstance(error, RayTaskError):
        return _ours(error.cause)
    if isinstance(error, RayError):
        words = " ".join(str(error).split())
        return StageGoneError(f"a stage of the pipeline is gone, so make another pipeline: {words}")
    return error
