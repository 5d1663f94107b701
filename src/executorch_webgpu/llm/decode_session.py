"""Decoding that does not wait for the host."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, DeviceError, InvalidInputError, UnsupportedProgramError
from ..graph.sampler import SamplerConfig
from ..ops.sampling.reference import BROKEN
from ..runtime.decode import DecodeLoop
from .model import LanguageModel, uninterrupted
from .plain_loop import FinishReason
from .sample import SamplingParams, checked

_RAMP = 2  # steps that one token may add, so that the first does not wait for many


class DecodeSession(Closing):
    """Tokens of one text after another, drawn on the GPU: each step feeds the next, and the host reads them later.

        with DecodeSession(model, SamplingParams(temperature=0.7, seed=1)) as session:
            session.prefill(prompt_tokens)
            for token in session:
                ...

    Tokens are those of ``generate`` without a session, for the same seed. They end before an end token, after
    ``max_new_tokens``, or where the context is full; ``finish_reason`` then says which. At any time the model's
    ``cached_tokens`` and the length of its state are what they would be if each step had waited for its token to be
    asked for: what ran ahead does not count, and is taken back when the text ends, or the session is closed.

    ``end_tokens``: by default those that the program states. ``steps_in_flight``: how many steps may be submitted
    whose token has not been read, by default 8, or 2 where a CPU computes them; 1 computes nothing ahead. Up to four
    of them that are short (2.5 ms together) may be one submission, whose tokens come at once.
    Any other use of the model closes the session. For one thread at a time: another one gets an InUseError meanwhile,
    but may close the session. Sessions of several sequences, in one thread or in many, do not disturb each other.
    Raises UnsupportedProgramError when the program cannot do this, and says why (see ``LanguageModel.host_reason``);
    InvalidInputError for parameters that the host must apply (see ``SamplingParams.host_reason``).
    """

    def __init__(
        self,
        model: LanguageModel,
        params: SamplingParams,
        *,
        end_tokens: Collection[int] | None = None,
        steps_in_flight: int | None = None,
    ) -> None:
        if steps_in_flight is not None and steps_in_flight < 1:
            raise InvalidInputError(f"steps_in_flight is {steps_in_flight}; it must be at least 1")
        self.finish_reason: FinishReason | None = None
        self._model = model
        self._params = params
        self._end_tokens = frozenset(model.eos_ids if end_tokens is None else end_tokens)
        filters = params.top_k, params.top_p, params.min_p
        config = SamplerConfig(params.some_seed, params.temperature, *filters, params.repetition_penalty)
        if why := params.host_reason:
            raise InvalidInputError(f"a DecodeSession draws tokens on the GPU, but {why}")
        if why := model.host_reason:
            raise UnsupportedProgramError(f"tokens cannot be drawn on the GPU: {why}")
        self._prompt_end = 0  # the position of the first token that is drawn
        self._most = 0  # tokens that may be drawn,
        self._drawn = 0  # that are drawn, or will be,
        self._given = 0  # and that were given away
        self._last = 0  # the token that was given away last
        self._last_chunk: tuple[Sequence[int], int] = [], 0  # of the prompt, with its position
        self._closed = False
        with model.use:
            model.leave_session()
            self._loop = DecodeLoop(*model.runs_on(), config, steps_in_flight)
            with self._loop.lock:
                model.enter_session(self.close)

    def prefill(self, tokens: Sequence[int], start: int = 0) -> None:
        """Run ``tokens``, at least one, at positions ``start`` and on; what comes next continues them.

        All before ``start`` must be in the KV cache; what it held from there on is given up. Does not wait.
        Raises InvalidInputError like ``LanguageModel.prefill``.
        """
        model = self._model
        with model.use:
            self._check_open()
            model.check_range(tokens, start)
            with uninterrupted(), self._loop.lock:
                self._check_open()
                self._drop()
                self._most = self._drawn = self._given = 0
                self.finish_reason = None
                model.holds([], start)
                self._loop.begin([*model.cached_tokens, *tokens])
            for first in range(0, len(tokens), model.max_tokens):
                chunk = tokens[first : first + model.max_tokens]
                self._run_chunk(chunk, start + first, first + len(chunk) == len(tokens))
            self._prompt_end = start + len(tokens)
            self._most = min(self._params.max_new_tokens, model.context_len - self._prompt_end + 1)
            self._drawn = 1

    def _run_chunk(self, tokens: Sequence[int], position: int, last: bool) -> None:
        with uninterrupted(), self._loop.lock:
            self._check_open()  # between chunks, another thread may have closed it
            self._loop.run(np.array([tokens], np.int32), position, self._row_of(tokens) if last else None)
            self._last_chunk = tokens, position
            self._loop.keep(position + len(tokens))
            self._model.holds(tokens, position)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """The next token; waits for it.

        Raises InvalidInputError before a ``prefill``, ClosedError, InUseError, DeviceError, and Error when logits are
        NaN or none is finite.
        """
        with self._model.use:
            return self._next()

    def _next(self) -> int:
        self._check_open()
        if self.finish_reason is not None:
            raise StopIteration
        if self._drawn == 0:
            raise InvalidInputError("there is no text to continue: give the session a prompt with prefill")
        if self._given == self._most:
            self.finish_reason = "length" if self._given == self._params.max_new_tokens else "context"
            raise StopIteration
        with uninterrupted(), self._loop.lock:
            self._check_open()
            self._submit_ahead()
            token = self._loop.read()
            if token == BROKEN and self._loop.recover():
                token = self._again()
            if self._given:  # the step of the last one has run
                length = self._prompt_end + self._given
                self._model.holds([self._last], length - 1)
                self._loop.keep(length)
            if token in self._end_tokens:
                self.finish_reason = "eos"
                self._drop()
                raise StopIteration
            if token == BROKEN:
                self.close()
            self._last = checked(token)
            self._given += 1
            return token

    def _again(self) -> int:
        """The token that was read last, computed again; what ran ahead of it is forgotten."""
        self._drop()
        tokens, position = ([self._last], self._prompt_end + self._given - 1) if self._given else self._last_chunk
        text = [*self._model.cached_tokens, *tokens] if self._given else self._model.cached_tokens
        self._loop.begin(text)
        self._loop.run(np.array([tokens], np.int32), position, self._row_of(tokens))
        self._drawn = self._given + 1
        return self._loop.read()

    def _row_of(self, tokens: Sequence[int]) -> int:
        """The row of the logits that tells what follows these tokens."""
        return len(tokens) - 1 if self._model.full_logits else 0

    def _submit_ahead(self) -> None:
        loop, left = self._loop, self._most - self._drawn
        room, together = loop.most - loop.pending, min(loop.together, left)
        if together > 1:
            if together <= room:
                loop.run_together(self._prompt_end + self._drawn - 1, together)
                self._drawn += together
            return
        for _ in range(min(_RAMP if loop.pending else 1, room, left)):
            loop.run(None, self._prompt_end + self._drawn - 1)
            self._drawn += 1

    def _drop(self) -> None:
        """Forget what was computed beyond the tokens that were given away."""
        with suppress(DeviceError, ClosedError):  # nothing lasts on a lost device, or in a closed program
            self._loop.drop()

    def close(self) -> None:
        """Take back what ran ahead; the model keeps the session's memory for another one. Closing twice is allowed."""
        with uninterrupted(), self._loop.lock:
            if not self._closed:
                self._closed = True
                self._drop()
                self._loop.close()
                self._model.left_session(self.close)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(
                "this session is closed, or its model was used otherwise; make another one, and a new_sequence() of "
                "the model for each text that goes on at the same time"
            )
