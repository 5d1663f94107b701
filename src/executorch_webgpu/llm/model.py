"""A language model: a program whose ``forward(tokens, input_pos) -> logits`` keeps a KV cache."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, UnsupportedProgramError
from ..gpu.trace import STEP, Described, spanned
from ..runtime import LoadOptions, Method, ProfileRow, Program, State
from ..runtime.decode import host_reason, prepare
from .exclusive import Exclusive, ExclusiveGenerator
from .signature import Signature

_signals: Any = getattr(signal, "_signal", signal)  # what ``signal`` wraps: its enums take microseconds of each token


def _described(model: LanguageModel, tokens: Sequence[int], position: int) -> Described:
    """What a trace calls a step: the first one of a text is a prefill, even of one token."""
    decodes = len(tokens) == 1 and position > 0
    return ("decode" if decodes else "prefill"), {"position": position, "tokens": len(tokens)}


class LanguageModel(Closing):
    """``forward`` of a program with its own KV cache; closing it frees the method, not the program.

    ``max_tokens``: the most tokens in one call. ``context_len``: rows of the KV cache, so the most tokens
    of a whole text. ``vocab_size``: logits per token. ``full_logits``: of every token, not of the last one.
    ``eos_ids``: end tokens that the program itself states. ``options``, ``changes``: as ``Program.load_method`` takes
    them.
    Ctrl-C waits for the end of a step, so a KeyboardInterrupt leaves the model usable and ``cached_tokens`` true.
    Threads need a ``new_sequence`` each: while one computes on a sequence, another gets an InUseError for it.
    Raises UnsupportedProgramError when ``forward`` is missing or is not a language model with a KV cache.
    """

    def __init__(self, program: Program, options: LoadOptions | None = None, **changes: Any) -> None:
        signature = Signature.of(program)
        self.max_tokens = signature.max_tokens
        self.vocab_size = signature.vocab_size
        self.full_logits = signature.full_logits
        self.context_len = signature.context_len
        self.eos_ids = signature.eos_ids
        self._tokens_dtype = signature.tokens_dtype
        self._positions = signature.positions
        self._forward = program.load_method("forward", options, **changes)
        self._state: State | None = None  # None: the method's own
        self._cached: list[int] = []
        self._leave: Callable[[], None] = _nothing  # ends the session that computes ahead
        self.use = _use()
        prepare(*self.runs_on())

    def new_sequence(self) -> LanguageModel:
        """Another text over the same weights, with a KV cache of its own; closing it frees the cache only."""
        other = copy(self)
        other._state = self._forward.new_state()
        other._cached = []
        other._leave = _nothing
        other.use = _use()
        return other

    @property
    def host_reason(self) -> str | None:
        """Why no ``DecodeSession`` can be made of this model; None when it can."""
        return host_reason(*self.runs_on())

    @property
    def cached_tokens(self) -> tuple[int, ...]:
        """The text in the KV cache, by position: what ran since the last reset. Rows past it are stale."""
        return tuple(self._cached)

    def prefill(self, tokens: Sequence[int], start: int = 0) -> NDArray[np.float32]:
        """Logits [vocab] after the last of ``tokens``, which stand at positions ``start`` and on.

        Fills the KV cache in chunks of at most ``max_tokens``. What it held from ``start`` on is given up; all
        before must be there.
        """
        last = np.empty(0, np.float32)
        with self.use:
            for rows in self._chunks(tokens, start):
                last = rows[-1]
        return last

    def logits(self, tokens: Sequence[int], start: int = 0) -> Iterator[NDArray[np.float32]]:
        """Logits [S, vocab] after every one of ``tokens``, S of them at a time; otherwise as ``prefill``.

        Raises UnsupportedProgramError when the program gives only those of the last position, ClosedError when the
        model has been used for something else since the last chunk.
        """
        if not self.full_logits:
            raise UnsupportedProgramError(
                "the program gives the logits of the last position only; convert the model with --full-logits"
            )
        return ExclusiveGenerator(self._chunks(tokens, start), self.use)

    def _chunks(self, tokens: Sequence[int], start: int) -> Generator[NDArray[np.float32]]:
        self.check_range(tokens, start)
        before: tuple[int, ...] | None = None
        for first in range(0, len(tokens), self.max_tokens):
            with self.use:
                if before not in (None, self.cached_tokens):
                    raise ClosedError(
                        "the model has been used for something else meanwhile, so these logits cannot go on; begin "
                        "anew, and make a new_sequence() for each text that goes on at the same time"
                    )
                rows = self._run(tokens[first : first + self.max_tokens], start + first)
                before = self.cached_tokens
            yield rows

    def step(self, token: int, position: int) -> NDArray[np.float32]:
        """Logits [vocab] after one token at a position, all earlier ones being in the KV cache."""
        return self.prefill([token], position)

    def reset(self) -> None:
        """Clear the KV cache."""
        with self.use:
            self.leave_session()
            with uninterrupted():
                self._cached.clear()
                self.runs_on()[1].reset()

    # -- for sessions -------------------------------------------------------------------------------------------------

    def runs_on(self) -> tuple[Method, State]:
        """The runtime's method, and the state of this text."""
        return self._forward, self._forward.state if self._state is None else self._state

    def holds(self, tokens: Sequence[int], position: int) -> None:
        """The KV cache holds ``tokens`` from ``position`` on, and nothing after them."""
        self._cached[position:] = tokens

    def enter_session(self, leave: Callable[[], None]) -> None:
        """A session computes ahead from now on; any other use of the model calls ``leave`` first."""
        self._leave = leave

    def leave_session(self) -> None:
        """End the session that computes ahead, if there is one."""
        self._leave()

    def left_session(self, leave: Callable[[], None]) -> None:
        """The session that this would end has ended; another one may have begun."""
        if self._leave == leave:
            self._leave = _nothing

    def profile(self) -> list[ProfileRow]:
        """Time per op of all calls so far, when loaded with ``profile=True``."""
        return self._forward.profile()

    def close(self) -> None:
        """Free the GPU memory of the method, or of this sequence if it is one of several."""
        self.leave_session()
        (self._forward if self._state is None else self._state).close()

    @spanned("step", STEP, _described)
    def _run(self, tokens: Sequence[int], position: int) -> NDArray[np.float32]:
        inputs = [np.array([tokens], self._tokens_dtype), self._positions(position, len(tokens))]
        self.leave_session()
        with uninterrupted():
            self.holds([], position)  # a step that fails may have overwritten these rows
            (logits,) = self._forward.execute(inputs, self._state)
            self.holds(tokens, position)
        # [1, vocab] and [1, 1, vocab] hold the last position only, [1, S, vocab] all of them.
        rows: NDArray[np.float32] = np.asarray(logits, np.float32).reshape(-1, self.vocab_size)
        return rows

    def check_range(self, tokens: Sequence[int], start: int) -> None:
        """Raises InvalidInputError unless ``tokens`` can stand at positions ``start`` and on."""
        if not tokens:
            raise InvalidInputError("there are no tokens to continue; give a prompt that is not empty")
        if start < 0 or start + len(tokens) > self.context_len:
            raise InvalidInputError(
                f"{len(tokens)} tokens from position {start} do not fit the model's context of "
                f"{self.context_len} tokens; shorten the prompt"
            )
        if start > len(self._cached):
            raise InvalidInputError(
                f"the KV cache holds {len(self._cached)} tokens, so position {start} would leave a gap; give the "
                "tokens between as well"
            )
        outside = next((token for token in tokens if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise InvalidInputError(
                f"token {outside} is outside the model's vocabulary of {self.vocab_size}; use the model's own tokenizer"
            )


def _nothing() -> None:
    """No session computes ahead."""


def _use() -> Exclusive:
    return Exclusive(
        "another thread is computing on this sequence of the model; give each thread one of its own with new_sequence()"
    )


class _Uninterrupted:
    """What ``uninterrupted`` gives. Each token enters one, so it is no generator."""

    __slots__ = ("_handler", "_held")

    def __enter__(self) -> None:
        self._handler: Any = None
        self._held: list[tuple[int, FrameType | None]] = []
        if threading.current_thread() is threading.main_thread():
            handler = _signals.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                _signals.signal(signal.SIGINT, self._hold)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held.append((number, frame))

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            _signals.signal(signal.SIGINT, self._handler)
            if self._held:
                self._handler(*self._held[0])


def uninterrupted() -> AbstractContextManager[None]:
    """Hold Ctrl-C back until the body has run: a step torn in the middle leaves GPU buffers mapped.

    Only the main thread is ever interrupted, and only by a handler that Python calls.
    """
    return _Uninterrupted()
