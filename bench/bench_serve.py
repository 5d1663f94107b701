"""What more GPUs give: python -m bench.bench_serve [MODEL] [--replicas 0 1 2 4] [--streams 64] [--steps 256]

For each number of replicas, ``et-webgpu serve --replicas`` is started, and ``--streams`` texts for each replica are
asked for at once. Prints the rate of all texts from the first request to the last token, its ratio to one replica, the
time to the first token, and what memory of which GPU the replicas took. 0 replicas is one server without Ray, so that
0 and 1 say what Ray and its balancer cost. Medians over ``--repeats`` rounds. Clients are processes of their own, two
for each replica by default.

Aim for at least 1.9 with two replicas, and 3.7 with four. MODEL is what ``et-webgpu generate`` takes; without one, a
program with the sizes of ``--shape``, random weights, and a byte-level vocabulary of random words.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from bench.bench_http import figures, over_http, program_file, started
from bench.http_paths import Text
from bench.models import SHAPES

WARMING_ROUNDS = 2  # in which every replica compiles, and plans its steps


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--replicas", type=int, nargs="+", default=[0, 1, 2, 4], help="0: without Ray")
    parser.add_argument("--streams", type=int, default=64, help="for each replica")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2, help="processes for each replica")
    parser.add_argument("--kv-cache", default="f16")
    parser.add_argument("--matmul-precision", default="high")
    args = parser.parse_args(argv)
    one: float | None = None
    print(f"{'replicas':>8}{'texts':>7}{'tokens/s':>10}{'ratio':>7}{'first ms':>10}{'p99':>9}   spread of tokens/s")
    with program_file(args) as path:
        for replicas in args.replicas:
            with serving(path, replicas, args) as url:
                rates, first, late, _ = figures(rounds(url, replicas, args))
                gpus = memory_of_gpus()
            rate = median(rates)
            one = rate if replicas == 1 else one
            ratio = f"{rate / one:.2f}" if one and replicas else ""
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            count = max(1, replicas) * args.streams
            print(
                f"{replicas:>8}{count:>7}{rate:>10.0f}{ratio:>7}{first:>10.1f}{late:>9.1f}   {spread}{gpus}", flush=True
            )


def rounds(url: str, replicas: int, args: argparse.Namespace) -> list[list[Text]]:
    """The texts of each round that counts. No prompt is like another one."""
    count, clients = max(1, replicas) * args.streams, max(1, replicas) * args.clients
    found = []
    with ProcessPoolExecutor(clients, get_context("spawn")) as pool:
        for repeat in range(WARMING_ROUNDS + args.repeats):
            random = np.random.default_rng([count, repeat])
            prompts = random.integers(0, min(SHAPES[args.shape].vocab, 30000), (count, args.prompt)).tolist()
            texts = over_http(url, pool, prompts, argparse.Namespace(clients=clients, steps=args.steps))
            assert all(text.tokens == args.steps for text in texts), [text.tokens for text in texts]
            if repeat >= WARMING_ROUNDS:
                found.append(texts)
    return found


@contextmanager
def serving(path: Path, replicas: int, args: argparse.Namespace) -> Iterator[str]:
    """The address of a server, once it is up."""
    # A round must not wait for a replica that has got a few texts more than the others.
    most = args.streams + args.streams // 4
    pages = most * -(-(args.prompt + args.steps) // 16) + 1
    command = [sys.executable, "-m", "executorch_webgpu", "serve", str(path), "--port", "0", "--no-page"]
    command += ["--kv-cache", args.kv_cache, "--matmul-precision", args.matmul_precision, "--kv-pages", str(pages)]
    command += ["--max-sequences", str(most), "--max-rows", str(max(256, most)), "--grace-seconds", "1"]
    command += ["--replicas", str(replicas)] if replicas else []
    command += ["--engine", args.engine] if args.engine else []
    with started(command) as url:
        yield url


def memory_of_gpus() -> str:
    """What each GPU holds, so that one sees where replicas are."""
    command = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return "   GPUs: " + "; ".join(listed.strip().splitlines())


if __name__ == "__main__":
    main()
