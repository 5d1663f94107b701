"""The measurements of bench/torch_model.py as lines beside ours; each variant in a process with a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from bench.models import SHAPES
from executorch_webgpu.llm.measure.lines import MIB, Line, rounded
from executorch_webgpu.llm.measure.stream_lines import StreamLine
from executorch_webgpu.models.llama import LlamaConfig

VARIANTS = {"compiled": "torch.compile, CUDA graph", "graph": "torch, CUDA graph", "eager": "torch, eager"}
HALF = 2  # bytes of a float16
ROWS_STEP = 256  # of a static KV cache
STREAM_ROWS_STEP = 128  # where many sequences are measured, whose caches are large
ROOT = Path(__file__).parents[1]
# What a line of ours says and one of torch's does not.
_NOT_MEASURED: dict[str, Any] = dict.fromkeys(field.name for field in fields(Line) if "None" in str(field.type))


def torch_available() -> bool:
    """Whether torch is installed and has a CUDA device."""
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def torch_lines(variant: str, ours: Sequence[Line], shape: str, seconds: float, device: str = "cuda") -> list[Line]:
    """What torch takes for the measurements of ``ours``; a line with a note for those that it did not get to.

    ``seconds``: how long the process may take. A note also says how many rows torch's KV cache has: it reads them all.
    """
    wanted = list({(line.phase, line.context, line.tokens): line for line in ours}.values())
    contexts = {line.context for line in wanted if line.phase == "decode"}
    prompts = {line.tokens for line in wanted if line.phase == "prefill"}
    steps = max((line.tokens for line in wanted if line.phase == "decode"), default=1)
    rows = -(-(max(contexts, default=0) + steps) // ROWS_STEP) * ROWS_STEP
    sizes = {"contexts": contexts, "prompts": prompts, "steps": [steps], "rows": [rows]}
    output, failure = run(command_of(variant, shape, device, sizes), seconds)
    found = {(m["phase"], m["context"], m["tokens"]): m["seconds"] for m in output}
    return [
        line_of(
            line, VARIANTS[variant], SHAPES[shape], found.get((line.phase, line.context, line.tokens)), rows, failure
        )
        for line in wanted
    ]


def torch_stream_lines(
    variant: str, ours: Sequence[StreamLine], shape: str, seconds: float, device: str = "cuda", repeats: int = 5
) -> list[StreamLine]:
    """Torch's rates for the numbers of streams and the lengths of ``ours``, as ``torch_lines`` gives them.

    All sequences of a batch are at the same position, which an engine does not ask for; prompts are not measured.
    """
    lines = []
    wanted = {(line.prompt, line.steps, line.streams): line for line in ours}
    for prompt, steps in dict.fromkeys((line.prompt, line.steps) for line in ours):
        batches = sorted({streams for p, s, streams in wanted if (p, s) == (prompt, steps)})
        rows = -(-(prompt + steps) // STREAM_ROWS_STEP) * STREAM_ROWS_STEP
        sizes = {"contexts": [prompt], "batches": batches, "steps": [steps], "rows": [rows], "repeats": [repeats]}
        output, failure = run(command_of(variant, shape, device, sizes), seconds)
        found = {m["batch"]: m["seconds"] for m in output}
        lines += [
            stream_line_of(
                wanted[prompt, steps, batch], VARIANTS[variant], SHAPES[shape], found.get(batch), rows, failure
            )
            for batch in batches
        ]
    return lines


def command_of(variant: str, shape: str, device: str, sizes: Mapping[str, Iterable[int]]) -> list[str]:
    """The command line of ``bench.torch_model``; ``sizes``: numbers by option."""
    command = [sys.executable, "-m", "bench.torch_model", variant, "--shape", shape, "--device", device]
    for name, values in sizes.items():
        command += [f"--{name}", *map(str, sorted(values))]
    return command


def run(command: Sequence[str], seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The lines of JSON that a process printed, and what went wrong; it is killed after ``seconds``."""
    failure = ""
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
        stdout = done.stdout
        if done.returncode != 0:
            failure = (done.stderr.decode(errors="replace").strip().splitlines() or ["ended early"])[-1][:200]
    except subprocess.TimeoutExpired as error:
        stdout, failure = error.stdout or b"", f"not done after {seconds:g} s"
    return [json.loads(line) for line in stdout.decode().splitlines() if line.startswith("{")], failure


def line_of(ours: Line, name: str, config: LlamaConfig, taken: Sequence[float] | None, rows: int, failure: str) -> Line:
    """Torch's line beside one of ours."""
    blank = replace(
        ours,
        engine="cuda",
        implementation=name,
        kv_cache="f16",
        note=failure,
        **_NOT_MEASURED,
    )
    if taken is None:
        return blank
    rate = ours.tokens / median(taken)
    line = replace(blank, rate=rounded(rate), spread=rounded((max(taken) - min(taken)) / median(taken)), note="")
    if ours.phase == "prefill":
        return line
    nbytes = step_bytes(config, ours.context + (ours.tokens + 1) / 2)
    roofline = ours.read_gbs * 1e9 / nbytes
    return replace(
        line,
        step_mib=rounded(nbytes / MIB),
        roofline=rounded(roofline),
        share=rounded(rate / roofline),
        note=f"cache of {rows}",
    )


def stream_line_of(
    ours: StreamLine, name: str, config: LlamaConfig, taken: Sequence[float] | None, rows: int, failure: str
) -> StreamLine:
    """Torch's line beside one of ours, of many sequences."""
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(ours) if "None" in str(field.type))
    blank = replace(ours, engine="cuda", implementation=name, kv_cache="f16", note=failure, **nothing)
    if taken is None:
        return blank
    rate = ours.streams * ours.steps / median(taken)
    nbytes = step_bytes(config, ours.streams * (ours.prompt + (ours.steps + 1) / 2))
    roofline = ours.read_gbs * 1e9 / nbytes * ours.streams
    return replace(
        blank,
        rate=rounded(rate),
        each=rounded(rate / ours.streams),
        spread=rounded((max(taken) - min(taken)) / median(taken)),
        step_mib=rounded(nbytes / MIB),
        roofline=rounded(roofline),
        share=rounded(rate / roofline),
        note=f"cache of {rows}",
    )


def step_bytes(config: LlamaConfig, rows: float) -> float:
    """What a decode step must read in float16: all weights once, and the visible rows of all KV caches."""
    weights = sum(dims[0] * (dims[1] if len(dims) == 2 else 1) for dims in config.weight_dims().values())
    if not config.tied_head:
        weights -= config.vocab * config.dim  # of the embedding, one row
    return HALF * (weights + rows * 2 * config.layers * config.kv_heads * config.head_dim)
