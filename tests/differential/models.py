"""Random models against ``transformers``: ``python -m tests.differential.models --count 500 --seed 1``.

Each is written to files, converted, and run in pieces over its KV cache; the logits after each piece, and the tokens
that greedy decoding chooses, must be those of the library. Otherwise the conversion refuses, and names what for.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.gguf import open_gguf
from executorch_webgpu.models.huggingface import open_huggingface
from tests.differential.models_files import Written, write_model
from tests.ops.harness import assert_close

LONGEST, GREEDY = 24, 3


def compare(seed: int, folder: Path, *, on_device: bool) -> str:
    """Runs the model of a seed: "right", or "refused" where that is right. AssertionError, with the model, if not.

    ``on_device``: by the kernels, else by their references.
    """
    written = write_model(seed, folder)
    try:
        return _compare(written, random.Random(seed), on_device)
    except Exception as error:
        raise AssertionError(f"{written.described}: {type(error).__name__}: {error}") from error


def _compare(written: Written, rng: random.Random, on_device: bool) -> str:
    target = written.path.with_name("converted.pte") if written.path.is_file() else written.path / "converted.pte"
    try:
        opened = open_huggingface if written.path.is_dir() else open_gguf
        with opened(written.path) as model:
            context_len, vocab = min(LONGEST, model.config.context_len), model.config.vocab
        convert(written.path, target, written.options(context_len))
    except (InvalidProgramError, UnsupportedProgramError) as error:
        if written.refused is None or written.refused not in str(error):
            raise
        return "refused"
    assert written.refused is None, f"'{written.refused}' is not refused"
    oracle = written.oracle
    assert oracle is not None
    text: list[int] = []
    most = written.options(context_len).lengths(model.config)[0] - 1
    with _running(target, on_device) as run:

        def step(part: list[int]) -> np.ndarray:
            logits = run([np.array([part], np.int64), np.array([len(text)], np.int64)])
            text.extend(part)
            with torch.no_grad():
                expected = oracle(torch.tensor([text])).logits[0, -1].numpy()
            assert_close(logits.astype(np.float32)[0], expected)
            return expected

        while len(text) < context_len - GREEDY - 1:
            room = min(most, context_len - GREEDY - len(text))
            expected = step([rng.randrange(vocab) for _ in range(rng.randint(1, max(1, room)))])
        for _ in range(GREEDY):  # a tie is decided by the oracle
            expected = step([int(expected.argmax())])
    return "right"


@contextmanager
def _running(path: Path, on_device: bool) -> Iterator[Callable[[list[np.ndarray]], np.ndarray]]:
    """``forward`` of a program: on the device, or by the operators' references in float64, which is faster to load."""
    if on_device:
        with Runtime.get().load_program(path) as program, program.load_method("forward") as forward:
            yield lambda inputs: np.asarray(forward.execute(inputs)[0])
        return
    file = read_program(path.read_bytes())
    (delegate,) = next(plan for plan in file.methods if plan.name == "forward").delegates
    executor = ReferenceExecutor(build_graph(read_vkgraph(file.delegate_data(delegate), file.named_data)))
    yield lambda inputs: np.asarray(executor.execute(inputs)[0])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="models to run")
    parser.add_argument("--seed", type=int, default=0, help="of the first model; the others count on")
    parser.add_argument(
        "--device-every", type=int, default=4, help="run every so manieth model on the device, the others on the host"
    )
    options = parser.parse_args(arguments)
    quiet()
    torch.set_num_threads(1)  # the models are too small to share
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                on_device = options.device_every > 0 and seed % options.device_every == 0
                outcomes[compare(seed, Path(folder), on_device=on_device)] += 1
            except Exception as error:  # of the generator, too
                outcomes["wrong"] += 1
                print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
    print(f"{dict(outcomes)} in {time.monotonic() - start:.0f} s")
    return 1 if outcomes["wrong"] else 0


def quiet() -> None:
    """The library says much about configurations that are meant to be odd."""
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    sys.exit(main())
