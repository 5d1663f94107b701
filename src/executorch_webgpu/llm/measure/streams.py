"""How fast an engine is with many texts at once: rates of all, and how long the reader of one waits.

Times are those at which the engine gives tokens, which its streams keep. So nobody has to read while they are measured:
readers would take turns with the engine, and a thread for each of 128 would slow down what it measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...gpu.ceilings import read_rate
from ...gpu.device import Device
from ...runtime import LoadOptions, Runtime
from ..engine import Engine
from ..sample import SamplingParams
from ..signature import Signature
from .speed import WARM_UP, Load, Progress, resident_bytes

PERCENTILES = (50, 95, 99)
MAX_ROWS = 512  # of a step, by default

Prompts = Sequence[Sequence[int]]
PromptsOf = Callable[[np.random.Generator, int, int, int], Prompts]  # how many, of how many tokens, of what vocabulary


@dataclass(frozen=True)
class StreamSizes:
    """What is measured: each of ``streams`` with each of ``prompts`` tokens a text, all continued by ``steps`` tokens.

    ``repeats``: how often. ``max_rows``: of a step, at least as many as there are streams. ``page_rows``: of a page.
    """

    streams: tuple[int, ...]
    prompts: tuple[int, ...]
    steps: int
    repeats: int
    max_rows: int
    page_rows: int = 16

    @classmethod
    def of(cls, device: Device, context_len: int, wanted: Mapping[str, Any]) -> StreamSizes:
        """What is ``wanted``, by field, and for the rest what suits the device, as far as the model's context goes.

        Raises InvalidInputError for what does not fit the context, and for numbers below 1.
        """
        prompt, steps, repeats = (64, 16, 1) if device.features.cpu else (512, 128, 3)
        prompt = max(1, min(prompt, context_len // 2))
        longest = max(wanted.get("prompts", (prompt,)), default=prompt)
        steps = max(1, min(steps, context_len - longest))
        sizes = replace(cls((1, 8, 32), (prompt,), steps, repeats, MAX_ROWS), **wanted)
        if min(*sizes.streams, *sizes.prompts, sizes.steps, sizes.repeats, sizes.max_rows, sizes.page_rows) < 1:
            raise InvalidInputError("streams, prompts, steps, repeats and rows must be at least 1")
        if max(sizes.prompts) + sizes.steps > context_len:
            raise InvalidInputError(
                f"{sizes.steps} tokens after a prompt of {max(sizes.prompts)} do not fit the model's context of "
                f"{context_len}; choose less, or a longer context when the model is converted"
            )
        return replace(sizes, max_rows=max(sizes.max_rows, *sizes.streams))

    @property
    def engine_options(self) -> dict[str, Any]:
        """Sizes of an engine that never has to take pages from a text."""
        most = max(self.streams)
        pages = most * -(-(max(self.prompts) + self.steps) // self.page_rows) + 1
        return {"kv_pages": pages, "page_rows": self.page_rows, "max_rows": self.max_rows, "max_sequences": most}


@dataclass(frozen=True)
class TextTimes:
    """One text: seconds on one clock at which it was submitted and at which each of its new ``tokens`` ``came``."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    submitted: float
    came: tuple[float, ...]


@dataclass(frozen=True)
class StreamSpeed:
    """``streams`` texts that begin together: ``prompt`` tokens each, then ``steps`` new ones.

    ``rates``: tokens a second of all texts while all of them decode, of each repeat; none where no two tokens came
    then. ``totals``: new tokens a second from the first prompt's arrival to the last token. ``first`` and ``between``:
    seconds to the first token, and between tokens, at ``PERCENTILES``, over all texts of all repeats, while prompts of
    others were still read; ``between`` is None for a single token each. ``step_bytes``: what a decode step of all of
    them must read. ``texts``: those of all repeats, when their prompts were read.
    """

    streams: int
    prompt: int
    steps: int
    rates: tuple[float, ...]
    totals: tuple[float, ...]
    first: tuple[float, ...]
    between: tuple[float, ...] | None
    step_bytes: float
    texts: tuple[TextTimes, ...] = field(repr=False)

    @property
    def rate(self) -> float | None:
        """Tokens a second of all texts, the median."""
        return median(self.rates) if self.rates else None

    @property
    def spread(self) -> float | None:
        """How far the fastest and the slowest repeat are apart, over the median; None of a single one."""
        return (max(self.rates) - min(self.rates)) / median(self.rates) if len(self.rates) > 1 else None


@dataclass(frozen=True)
class StreamReport:
    """What was measured of one model. ``read_ceiling``: bytes a second that the device reads, in the same run."""

    options: LoadOptions
    load: Load
    read_ceiling: float
    sizes: StreamSizes
    speeds: tuple[StreamSpeed, ...]


def measure_streams(
    runtime: Runtime,
    path: Path,
    wanted: Mapping[str, Any] = MappingProxyType({}),
    *,
    options: LoadOptions | None = None,
    prompts_of: PromptsOf | None = None,
    on_progress: Progress = lambda done, total: None,
    **changes: Any,
) -> StreamReport:
    """Load a program into an engine and measure it.

    ``wanted``: fields of ``StreamSizes``; the others are what suits the device. ``prompts_of``: by default
    ``random_prompts``. ``options``, ``changes``: as ``Program.load_method`` takes them.
    Raises InvalidInputError for sizes that do not fit, and what loading raises.
    """
    device = runtime.device
    resident, on_device, begun = resident_bytes(), device.memory.live_bytes, time.perf_counter()
    options = LoadOptions.of(options, changes)
    with runtime.load_program(path) as program:
        sizes = StreamSizes.of(device, Signature.of(program).context_len, wanted)
        with Engine(program, options, **sizes.engine_options) as engine:
            seconds = time.perf_counter() - begun
            load = Load(seconds, path.stat().st_size, resident_bytes() - resident, device.memory.live_bytes - on_device)
            ceiling = read_rate(device)
            total = len(sizes.prompts) * len(sizes.streams)
            step_bytes = program.step_bytes("forward", options)
            speeds: list[StreamSpeed] = []
            for speed in _speeds(engine, sizes, prompts_of or random_prompts, 0 if device.features.cpu else WARM_UP):
                rows = speed.streams * (speed.prompt + (speed.steps + 1) / 2)  # that all texts see, on average
                speeds.append(replace(speed, step_bytes=step_bytes.at(rows)))
                on_progress(len(speeds), total)
        ceiling = max(ceiling, read_rate(device))  # what else the machine does makes it lower, never higher
    return StreamReport(options, load, ceiling, sizes, tuple(speeds))


def random_prompts(random: np.random.Generator, count: int, length: int, vocab: int) -> list[list[int]]:
    """Prompts that have nothing in common."""
    return [[int(token) for token in random.integers(0, vocab, length)] for _ in range(count)]


def timed(engine: Engine, prompts: Prompts, steps: int) -> list[TextTimes]:
    """Continue texts that begin together by ``steps`` tokens each, greedy; nobody reads them until they end."""
    streams = [engine.submit(prompt, SamplingParams(steps), end_tokens=()) for prompt in prompts]
    # The last one ends last, or nearly so; to wait for it wakes one thread a token.
    tokens = [tuple(stream) for stream in reversed(streams)][::-1]
    return [
        TextTimes(tuple(prompt), text, stream.times.submitted, tuple(stream.times.tokens))
        for prompt, stream, text in zip(prompts, streams, tokens, strict=True)
    ]


def speed_of(
    prompt: int, arrivals: Sequence[Sequence[TextTimes]], decodes: Sequence[Sequence[TextTimes]]
) -> StreamSpeed:
    """The figures of texts of ``prompt`` tokens each.

    ``arrivals``: of each repeat, texts whose prompts were read; ``decodes``: the same ones again, whose prompts were
    known, so that all of them decode at once.
    """
    texts = [text for repeat in arrivals for text in repeat]
    steps = len(texts[0].came)
    first = [text.came[0] - text.submitted for text in texts]
    between = np.concatenate([np.diff(text.came) for text in texts])
    return StreamSpeed(
        streams=len(arrivals[0]),
        prompt=prompt,
        steps=steps,
        rates=tuple(rate for repeat in decodes if (rate := decode_rate(repeat)) is not None),
        totals=tuple(total_rate(repeat) for repeat in arrivals),
        first=_percentiles(first),
        between=_percentiles(between) if len(between) else None,
        step_bytes=0,
        texts=tuple(texts),
    )


def decode_rate(texts: Sequence[TextTimes]) -> float | None:
    """Tokens a second of all texts from when the last one has its first token to when the first one has its last."""
    begin, end = max(text.came[0] for text in texts), min(text.came[-1] for text in texts)
    if end <= begin:
        return None
    return sum(begin < at <= end for text in texts for at in text.came) / (end - begin)


def total_rate(texts: Sequence[TextTimes]) -> float:
    """New tokens a second of all texts, prompts and all."""
    seconds = max(text.came[-1] for text in texts) - min(text.submitted for text in texts)
    return sum(len(text.came) for text in texts) / seconds


def _percentiles(seconds: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(seconds, PERCENTILES))


def _speeds(engine: Engine, sizes: StreamSizes, prompts_of: PromptsOf, warm_up: float) -> Iterator[StreamSpeed]:
    random = np.random.default_rng(0)
    for prompt in sizes.prompts:
        for count in sizes.streams:
            _warm(engine, prompts_of(random, count, prompt, engine.vocab_size), sizes.steps, warm_up)
            arrivals, decodes = [], []
            for _ in range(sizes.repeats):
                prompts = prompts_of(random, count, prompt, engine.vocab_size)
                arrivals.append(timed(engine, prompts, sizes.steps))
                decodes.append(timed(engine, prompts, sizes.steps))
            yield speed_of(prompt, arrivals, decodes)


def _warm(engine: Engine, prompts: Prompts, steps: int, seconds: float) -> None:
    """Texts that do not count, for at least ``seconds``: their steps make plans, compile pipelines and wake clocks."""
    begun = time.perf_counter()
    timed(engine, prompts, min(2, steps))
    while time.perf_counter() - begun < seconds:
        timed(engine, prompts, min(8, steps))  # their prompts are known
