"""How fast a language model is, by wall clock and through the code that ``generate`` uses; and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from ...errors import InvalidInputError
from ...gpu.ceilings import read_rate
from ...gpu.device import Device
from ...runtime import LoadOptions, ProfileRow, Program, Runtime
from ...text.tokenizer import Tokenizer, TokenizerSettings
from ..generate import cached_prefix, generate
from ..model import LanguageModel
from ..program_tokenizer import own_tokenizer
from ..sample import SamplingParams

WARM_UP = 0.5  # seconds of work that does not count: a GPU that had nothing to do runs at a fraction of its clock
_COUNTED = 16  # steps whose dispatches and GPU time are counted

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """What is measured: prefill of ``prompts`` tokens each, and decode of ``steps`` tokens after each of ``contexts``.

    Every figure is the median of ``repeats``.
    """

    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    steps: int
    repeats: int

    @classmethod
    def of(cls, device: Device, context_len: int, wanted: Mapping[str, Any]) -> Sizes:
        """What is ``wanted``, by field, and for the rest what suits the device, as far as the model's context goes.

        Raises InvalidInputError for what does not fit the context.
        """
        contexts = (0, 128, 512, 1024)
        usual = cls((128,), contexts[:3], 16, 3) if device.features.cpu else cls((128, 512), contexts, 64, 5)
        sizes = replace(usual, **wanted)
        if "steps" not in wanted:
            longest = max(wanted.get("contexts", (0,)), default=0)
            sizes = replace(sizes, steps=max(1, min(sizes.steps, context_len - longest)))
        if "prompts" not in wanted:
            sizes = replace(sizes, prompts=tuple(n for n in sizes.prompts if n <= context_len) or (context_len,))
        if "contexts" not in wanted:
            sizes = replace(sizes, contexts=tuple(n for n in sizes.contexts if n + sizes.steps <= context_len))
        sizes._check(context_len)
        return sizes

    def _check(self, context_len: int) -> None:
        if min(*self.prompts, self.steps, self.repeats, 1) < 1 or min(self.contexts, default=0) < 0:
            raise InvalidInputError("prompts, steps and repeats must be at least 1, and contexts at least 0")
        longest = max(self.prompts, default=0)
        if longest > context_len:
            raise InvalidInputError(
                f"a prompt of {longest} tokens does not fit the model's context of {context_len}; choose shorter "
                "prompts, or a longer context when the model is converted"
            )
        before = max(self.contexts, default=0)
        if before + self.steps > context_len:
            raise InvalidInputError(
                f"{self.steps} tokens after {before} do not fit the model's context of {context_len}; choose less, "
                "or a longer context when the model is converted"
            )


@dataclass(frozen=True)
class Load:
    """What loading took: seconds, and by how many bytes memory grew (``resident``: 0 where the system does not say)."""

    seconds: float
    file_bytes: int
    resident_bytes: int
    device_bytes: int


@dataclass(frozen=True)
class Speed:
    """One measurement: ``tokens`` in ``seconds`` each time, text out.

    Of a prompt in prefill, to its first new token; one after the other in decode, the first of them after ``context``
    tokens. ``waits``: seconds from each token of all these runs to the next. ``host_ms``: of processor time a token, by
    all threads of this process, waits in which they spin included.
    Of a decode step: ``step_bytes`` that it must read, ``dispatches``, and the ``gpu_ms`` of its kernels, from a run of
    its own (None without timestamps).
    """

    phase: str  # "prefill" | "decode"
    context: int
    tokens: int
    seconds: tuple[float, ...]
    waits: tuple[float, ...]
    host_ms: float
    step_bytes: float | None = None
    dispatches: int | None = None
    gpu_ms: float | None = None

    @property
    def rate(self) -> float:
        """Tokens a second, the median."""
        return self.tokens / median(self.seconds)

    def wait_ms(self, share: float) -> float | None:
        """Milliseconds between tokens that ``share`` of the waits do not exceed; None without a second token."""
        return 1e3 * float(np.quantile(self.waits, share)) if self.waits else None

    @property
    def spread(self) -> float:
        """How far the fastest and the slowest are apart, over the median."""
        return (max(self.seconds) - min(self.seconds)) / median(self.seconds)

    def share(self, read_ceiling: float) -> float | None:
        """Of the rate at which memory that gives ``read_ceiling`` bytes a second would let it decode."""
        return None if self.step_bytes is None else self.rate * self.step_bytes / read_ceiling


@dataclass(frozen=True)
class Report:
    """What was measured of one model. ``read_ceiling``: bytes a second that the device reads, in the same run."""

    options: LoadOptions
    load: Load
    read_ceiling: float
    speeds: tuple[Speed, ...]
    profile: tuple[ProfileRow, ...]  # of decode, by operator


def measure(
    runtime: Runtime,
    path: Path,
    wanted: Mapping[str, Any] = MappingProxyType({}),
    *,
    tokenizer: Tokenizer | None = None,
    options: LoadOptions | None = None,
    on_progress: Progress = lambda done, total: None,
    **changes: Any,
) -> Report:
    """Load a program and measure it.

    ``wanted``: fields of ``Sizes``; the others are what suits the device. ``tokenizer``: by default the program's own;
    without any, tokens are spelled as numbers. ``options``, ``changes``: as ``Program.load_method`` takes them.
    Raises InvalidInputError for sizes that do not fit, and what loading raises.
    """
    device = runtime.device
    resident, on_device, begun = resident_bytes(), device.memory.live_bytes, time.perf_counter()
    options = LoadOptions.of(options, changes)
    with runtime.load_program(path) as program, LanguageModel(program, options) as model:
        seconds = time.perf_counter() - begun
        load = Load(seconds, path.stat().st_size, resident_bytes() - resident, device.memory.live_bytes - on_device)
        sizes = Sizes.of(device, model.context_len, wanted)
        tokenizer = endless(tokenizer or own_or_numbers(program, model.vocab_size))
        model.eos_ids = frozenset()  # what is measured has no end
        text = random_text(tokenizer, model.vocab_size, model.context_len)
        ceiling = read_rate(device)
        warm_up = 0 if device.features.cpu else WARM_UP
        total = len(sizes.prompts) + len(sizes.contexts) + 1
        speeds: list[Speed] = []
        for speed in _speeds(model, tokenizer, text, sizes, warm_up):
            speeds.append(speed)
            on_progress(len(speeds), total)
        with LanguageModel(program, options, profile=True) as profiled:
            profiled.eos_ids = frozenset()
            step_bytes = program.step_bytes("forward", options)
            for i, speed in enumerate(speeds):
                if speed.phase == "decode":
                    dispatches, gpu_ms = _step_cost(profiled, tokenizer, text, speed.context, warm_up)
                    visible = speed.context + (speed.tokens + 1) / 2  # rows, on average
                    nbytes = step_bytes.at(visible)
                    speeds[i] = replace(speed, step_bytes=nbytes, dispatches=dispatches, gpu_ms=gpu_ms)
            profile = tuple(profiled.profile())
        ceiling = max(ceiling, read_rate(device))  # what else the machine does makes it lower, never higher
        on_progress(total, total)
    return Report(options, load, ceiling, tuple(speeds), profile)


def prefill_seconds(model: LanguageModel, tokenizer: Tokenizer, prompt: Sequence[int]) -> float:
    """Seconds from a prompt to the text of the first new token."""
    return _prefill(model, tokenizer, prompt).seconds


def decode_seconds(model: LanguageModel, tokenizer: Tokenizer, text: Sequence[int], context: int, steps: int) -> float:
    """Seconds of ``steps`` new tokens, text out, that follow ``text[: context + 1]``.

    The first ``context`` tokens are in the KV cache before the clock starts; the one after them is the first step's.
    """
    return _decode(model, tokenizer, text, context, steps).seconds


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class _Run:
    """Seconds of a run, of the waits between its tokens, and of the processors."""

    seconds: float
    waits: tuple[float, ...]
    cpu_seconds: float


def _speeds(
    model: LanguageModel, tokenizer: Tokenizer, text: Sequence[int], sizes: Sizes, warm_up: float
) -> Iterator[Speed]:
    for count in sizes.prompts:
        prefill = partial(_prefill, model, tokenizer, text[:count])
        yield _speed("prefill", 0, count, _repeated(prefill, sizes.repeats, warm_up))
    for context in sorted(sizes.contexts):  # each goes on where the last one ended
        decode = partial(_decode, model, tokenizer, text, context, sizes.steps)
        yield _speed("decode", context, sizes.steps, _repeated(decode, sizes.repeats, warm_up))


def _speed(phase: str, context: int, tokens: int, runs: Sequence[_Run]) -> Speed:
    host_ms = 1e3 * median(run.cpu_seconds for run in runs) / tokens
    waits = tuple(wait for run in runs for wait in run.waits)
    return Speed(phase, context, tokens, tuple(run.seconds for run in runs), waits, host_ms)


def _prefill(model: LanguageModel, tokenizer: Tokenizer, prompt: Sequence[int]) -> _Run:
    return _generated(model, tokenizer, prompt, 1, 0)


def _decode(model: LanguageModel, tokenizer: Tokenizer, text: Sequence[int], context: int, steps: int) -> _Run:
    have = cached_prefix(model, text[: context + 1])
    if have < context:
        model.prefill(text[have:context], have)
    return _generated(model, tokenizer, text[: context + 1], steps, context)


def _repeated(once: Callable[[], T], repeats: int, warm_up: float) -> tuple[T, ...]:
    """What ``once`` gives, ``repeats`` times, after runs that do not count: one at least, for ``warm_up`` seconds."""
    begun = time.perf_counter()
    once()
    while time.perf_counter() - begun < warm_up:
        once()
    return tuple(once() for _ in range(repeats))


def _generated(model: LanguageModel, tokenizer: Tokenizer, prompt: Sequence[int], count: int, start: int) -> _Run:
    cpu, begun = time.process_time(), time.perf_counter()
    came = [
        time.perf_counter()
        for piece in generate(model, tokenizer, prompt, SamplingParams(max_new_tokens=count), start)
        if piece.token is not None
    ]
    seconds = time.perf_counter() - begun
    return _Run(seconds, tuple(np.diff(came).tolist()), time.process_time() - cpu)


def _step_cost(
    model: LanguageModel, tokenizer: Tokenizer, text: Sequence[int], context: int, warm_up: float
) -> tuple[int, float | None]:
    """(dispatches, GPU milliseconds) of a decode step: what a longer run has more than a shorter one."""

    def totals(steps: int) -> tuple[int, float]:
        if not steps:
            return 0, 0.0
        before = model.profile()
        decode_seconds(model, tokenizer, text, context, steps)
        dispatches, gpu_ms = (
            sum(getattr(row, name) or 0 for row in model.profile()) - sum(getattr(row, name) or 0 for row in before)
            for name in ("dispatches", "gpu_ms")
        )
        return dispatches, gpu_ms

    longer = min(_COUNTED, model.context_len - context)
    shorter = longer // 4
    _repeated(partial(decode_seconds, model, tokenizer, text, context, 1), 0, warm_up)  # fills the cache
    (few, short), (many, long) = totals(shorter), totals(longer)
    steps = longer - shorter
    return (many - few) // steps, max(0.0, long - short) / steps if long else None


def endless(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer without end tokens."""
    return Tokenizer(tokenizer.backend, replace(tokenizer.settings, eos_ids=frozenset()))


def own_or_numbers(program: Program, vocab_size: int) -> Tokenizer:
    """The program's own, or one that spells tokens of such a vocabulary as numbers."""
    if (own := own_tokenizer(program)) is not None:
        return own
    words = models.WordLevel({str(token): token for token in range(vocab_size)}, unk_token="0")
    backend = tokenizers.Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, TokenizerSettings())


def random_text(tokenizer: Tokenizer, vocab_size: int, length: int) -> list[int]:
    """So many tokens, the same every time, which text becomes."""
    random = np.random.default_rng(0)
    most = min(tokenizer.vocab_size, vocab_size)
    return [int(token) for token in random.integers(0, most, length)]
