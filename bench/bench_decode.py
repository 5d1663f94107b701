"""The step loop: python -m bench.bench_decode [MODEL] [--context 1024] [--steps 128] [--temperature 0.7 --top-p 0.9]

Prints microseconds of the kernels that draw a token from random logits, and of those that draw the tokens of many rows
at once; then tokens a second of whole decode steps, by
wall clock from the first token to the last: one call a token, and sessions with more and more steps in flight, all of
which must give the same text. MODEL is what ``et-webgpu generate`` takes; without one, a program with the sizes of
``--shape`` and random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.models import SHAPES, fitting_options, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import DeviceError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.timing import seconds
from executorch_webgpu.llm import DecodeSession, LanguageModel, SamplingParams
from executorch_webgpu.llm.plain_loop import PlainLoop
from executorch_webgpu.models.library import find_program
from executorch_webgpu.ops.sampling.draws import Draw, LogitChanges
from tests.ops.test_sampling import normal, sampler
from tests.ops.test_sampling_rows import inputs, program_of

VOCABULARIES = (49152, 128256)
SPREADS = (1.0, 4.0)  # deviations of logits: nearly even, and as peaked as a model's
# Temperature, top-k, top-p, min-p, repetition penalty.
DRAWS = (
    (0.0, 0, 1.0, 0.0, 1.0),
    (0.7, 0, 1.0, 0.0, 1.0),
    (0.7, 0, 0.9, 0.0, 1.0),
    (0.7, 40, 1.0, 0.0, 1.0),
    (0.7, 40, 0.9, 0.0, 1.0),
    (0.7, 0, 1.0, 0.05, 1.0),
    (0.0, 0, 1.0, 0.0, 1.1),
    (0.7, 40, 0.9, 0.05, 1.1),
)
ROWS = (1, 8, 32, 128)
# What all rows ask for; a penalty is for 1,000 tokens of each, and one in four tokens is allowed.
WAYS = ("greedy", "temperature", "top-p", "top-k", "top-k and top-p", "log probabilities", "penalty", "mask", "mixed")
IN_FLIGHT = (1, 2, 4, 8, 16)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--context", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--only-draws", action="store_true", help="no loops, so no model")
    args = parser.parse_args(argv)
    runtime = Runtime.get(args.engine, args.adapter)
    print(f"{runtime.device.info.name} ({runtime.device.engine})")
    show_draws(runtime.device)
    show_row_draws(runtime.device)
    if args.only_draws:
        return
    params = SamplingParams(args.steps + 1, args.temperature, args.top_k, args.top_p, seed=0)
    with (
        program_file(args) as path,
        runtime.load_program(path) as program,
        LanguageModel(program) as model,
    ):
        show_loops(model, params, args.context)


@contextmanager
def program_file(args: argparse.Namespace) -> Iterator[Path]:
    """The program of the model, or for the time being one of the shape."""
    if args.model is not None:
        yield find_program(args.model)
        return
    with TemporaryDirectory() as folder:
        path, config = Path(folder) / "model.pte", SHAPES[args.shape]
        write_llama(path, config, fitting_options(config, args.context, args.context + args.steps + 1))
        yield path


def show_draws(device: Device) -> None:
    names = f"{'temperature':>13}{'top-k':>7}{'top-p':>7}{'min-p':>7}{'penalty':>9}"
    print(f"{'vocabulary':>10}{'spread':>8}{names}{'us a token':>12}")
    for vocab in VOCABULARIES:
        for spread in SPREADS:
            logits = normal(0, 1, vocab, scale=spread)
            for temperature, top_k, top_p, min_p, penalty in DRAWS:
                seen = None if penalty == 1 else np.random.default_rng(0).random(vocab) < 0.02
                with sampler(device, vocab, temperature, top_k, top_p, min_p, penalty=penalty, seen=seen) as program:
                    program.run([logits, 0, 0])
                    (commands,) = [c for c in program.executor.commands if c]
                    taken = seconds(device, commands)
                values = f"{temperature:>13}{top_k:>7}{top_p:>7}{min_p:>7}{penalty:>9}"
                print(f"{vocab:>10}{spread:>8}{values}{taken * 1e6:>12.1f}")


def draws_of(way: str, rows: int, vocab: int) -> list[Draw]:
    """How each of the rows is drawn; those of "mixed" are greedy, sampled, and sampled by top-p in turn."""
    tokens = np.arange(0, vocab, max(1, vocab // 1000), dtype=np.int32)
    changes = LogitChanges(tokens, np.full(tokens.size, 1.1, np.float32), np.zeros(tokens.size, np.float32))
    allowed = np.full(-(-vocab // 32), 0x11111111, np.uint32)
    ways: dict[str, list[dict[str, Any]]] = {
        "greedy": [{}],
        "temperature": [{"temperature": 0.7}],
        "top-p": [{"temperature": 0.7, "top_p": 0.9}],
        "top-k": [{"temperature": 0.7, "top_k": 40}],
        "top-k and top-p": [{"temperature": 0.7, "top_k": 40, "top_p": 0.9}],
        "log probabilities": [{"logprobs": 20}],
        "penalty": [{"changes": changes}],
        "mask": [{"allowed": allowed}],
    }
    ways["mixed"] = ways["greedy"] + ways["temperature"] + ways["top-p"]
    return [Draw(row, row, **ways[way][row % len(ways[way])]) for row in range(rows)]


def show_row_draws(device: Device) -> None:
    """Microseconds of GPU time for the tokens of many rows, each a row of logits of its own."""
    vocab = VOCABULARIES[-1]
    print(f"{'vocabulary':>10}{'spread':>8}{'rows':>6}{'all rows':>20}{'us a step':>12}{'us a row':>10}")
    for spread in SPREADS:
        for rows in ROWS:
            logits = normal(0, rows, vocab, scale=spread)
            with program_of(device, vocab, rows, changes=2048 * rows) as program:
                for way in WAYS:
                    program.run(inputs(logits, draws_of(way, rows, vocab)))
                    (commands,) = [c for c in program.executor.commands if c]
                    taken = seconds(device, commands) * 1e6
                    print(f"{vocab:>10}{spread:>8}{rows:>6}{way:>20}{taken:>12.1f}{taken / rows:>10.2f}")


def show_loops(model: LanguageModel, params: SamplingParams, context: int) -> None:
    context = min(context, model.context_len - params.max_new_tokens)
    prompt = np.random.default_rng(0).integers(0, min(400, model.vocab_size), context).tolist()
    print(f"decode at context {context}, {params.max_new_tokens - 1} steps")
    print(f"{'loop':>14}{'tokens/s':>10}{'of plain':>10}{'first token, s':>16}")
    first, plain, text = timed(model, PlainLoop(model, params, ()), prompt)
    print(f"{'plain':>14}{plain:>10.1f}{1:>10.2f}{first:>16.3f}")
    for count in IN_FLIGHT:
        session = DecodeSession(model, params, end_tokens=(), steps_in_flight=count)
        first, rate, tokens = timed(model, session, prompt)
        if tokens != text:
            raise DeviceError(f"{count} steps in flight give another text than one call a token")
        print(f"{f'{count} in flight':>14}{rate:>10.1f}{rate / plain:>10.2f}{first:>16.3f}")


def timed(model: LanguageModel, loop: PlainLoop | DecodeSession, prompt: list[int]) -> tuple[float, float, list[int]]:
    """Seconds to the first token, tokens a second after it, and the tokens; the second of two runs."""
    for _ in range(2):
        begun = time.perf_counter()
        loop.prefill(prompt)
        tokens = [next(loop)]
        first = time.perf_counter()
        tokens += loop
        ended = time.perf_counter()
    loop.close()
    return first - begun, (len(tokens) - 1) / (ended - first), tokens


if __name__ == "__main__":
    main()
