"""A model through torch, the stock runtime and ours, and who is right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.runtime import Runtime as StockRuntime
from executorch.runtime import Verification

import executorch_webgpu
from executorch_webgpu import Error

from .programs_compare import BFLOAT16, RULES, Tolerances, difference
from .programs_export import Exported, ExportError, Flavour, lower, trace
from .programs_model import Model, call_inputs, eager

Steps = list[list[Any]]


@dataclass(frozen=True)
class Verdict:
    """What became of one program file.

    ``kind``: right; refused (by one of our errors); follows stock (as the stock runtime has it, which is not as torch
    has it); exporter (right for the file, whose meaning is not the model's); wrong; not exported.
    """

    kind: str
    detail: str = ""
    exported: Exported | None = field(default=None, repr=False)
    expected: Steps | None = field(default=None, repr=False)
    rules: str = "host"
    stock: str = ""  # how the stock runtime differs from torch, or why it refuses


def examine(
    model: Model, host: Flavour, delegated: Flavour | None, stage: Callable[[str], None] = lambda s: None
) -> list[Verdict]:
    """Verdicts on the program without a delegate and, if asked for, on the delegated one."""
    stage("torch")
    try:
        right = as_arrays(eager(model))
    except Exception as error:  # other inputs than those that it was drawn with, such as a division by zero
        return [Verdict("not exported", f"torch: {type(error).__name__}: {str(error).splitlines()[0][:120]}")]
    try:
        stage("export")
        traced = trace(model)
        portable = lower(traced, host)
    except ExportError as error:
        return [Verdict("not exported", str(error))]
    if len(model.methods) > 1 and not host.share_buffers:
        right = as_arrays(eager(model, shared=False))
    stage("stock")
    stock, refusal = _attempt(lambda: run_stock(portable, model))
    problem = refusal or difference_of_steps(stock, right, RULES["host"])
    stage("ours on the host")
    verdicts = [_judge(portable, model, right, stock, "host", problem)]
    if delegated is not None and not _needs_host(model, delegated, right):
        stage("export with delegates")
        try:
            program = lower(traced, delegated)
        except ExportError as error:
            verdicts.append(Verdict("not exported", f"vulkan {error}"))
            return verdicts
        stage("ours with delegates")
        right = as_arrays(eager(model))
        verdicts.append(_judge(program, model, right, stock, "half" if delegated.force_fp16 else "delegate", problem))
    return verdicts


def _needs_host(model: Model, flavour: Flavour, right: Steps) -> bool:
    """Whether a GPU's floats and 32-bit integers cannot give what torch gives."""
    return (
        model.host_only or (flavour.force_fp16 and model.discontinuous) or any(map(_is_beyond_32_bits, chain(*right)))
    )


def _is_beyond_32_bits(value: Any) -> bool:
    wide = isinstance(value, np.ndarray) and value.dtype == np.int64 and value.size > 0
    return wide and not -(2**31) <= int(value.min()) <= int(value.max()) < 2**31


def _judge(
    exported: Exported,
    model: Model,
    right: Steps,
    stock: Steps | None,
    rules: str,
    stock_problem: str | None,
) -> Verdict:
    def verdict(kind: str, detail: str = "", expected: Steps | None = right) -> Verdict:
        return Verdict(kind, detail, exported, expected, rules, stock_problem or "")

    try:
        ours = run_ours(exported, model)
    except Error as error:
        return verdict("refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        return verdict("wrong", f"{type(error).__name__}: {error}")
    problem = difference_of_steps(ours, right, RULES[rules])
    if problem is None:
        return verdict("right")
    if stock is not None and stock_problem and difference_of_steps(ours, stock, RULES[rules]) is None:
        return verdict("follows stock", problem, stock)
    return verdict("wrong", f"{problem}{f' (stock: {stock_problem})' if stock_problem else ''}")


def difference_of_steps(got: Steps | None, wanted: Steps, tolerances: Tolerances) -> str | None:
    if got is None:
        return "no answer"
    for step, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if problem := difference(a, b, tolerances):
            return f"step {step}, {problem}"
    return None


def _attempt(run: Callable[[], Steps]) -> tuple[Steps | None, str | None]:
    try:
        return run(), None
    except Exception as error:
        return None, f"refuses: {type(error).__name__}: {str(error).splitlines()[0][:100]}"


def run_stock(exported: Exported, model: Model) -> Steps:
    """What the stock runtime answers to every call."""
    with _files(exported) as (file, data):
        options: dict[str, Any] = {"data_path": data[0]} if data else {}
        program = StockRuntime.get().load_program(file, verification=Verification.Minimal, **options)
        steps = []
        for call in model.calls:
            method = program.load_method(model.methods[call.method].name)
            assert method is not None
            steps.append(list(method.execute(_cloned(call_inputs(model, call)))))
        return as_arrays(steps)


def run_ours(exported: Exported, model: Model) -> Steps:
    """What our runtime answers to every call."""
    with _files(exported) as (file, data):
        options: dict[str, Any] = {"data_files": data} if data else {}
        with executorch_webgpu.Runtime.get().load_program(file, **options) as program:
            methods = [program.load_method(method.name) for method in model.methods]
            return as_arrays([methods[c.method].execute(_cloned(call_inputs(model, c))) for c in model.calls])


@contextmanager
def _files(exported: Exported) -> Iterator[tuple[bytes | Path, list[Path]]]:
    """What to load a program from: its bytes, or files where it has data beside it."""
    if not exported.data:
        yield exported.program, []
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.pte"
        file.write_bytes(exported.program)
        yield file, write_data(exported, Path(folder))


def write_data(exported: Exported, folder: Path, prefix: str = "") -> list[Path]:
    """Write the data files of a program; returns their paths."""
    paths = []
    for name, content in exported.data.items():
        paths.append(folder / f"{prefix}{name.removesuffix('.ptd')}.ptd")
        paths[-1].write_bytes(content)
    return paths


def _cloned(values: Sequence[Any]) -> list[Any]:
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in values]


def as_arrays(steps: Sequence[Sequence[Any]]) -> Steps:
    """Tensors as NumPy arrays. bfloat16, which NumPy lacks, becomes float32 of a dtype that says so."""
    return [[_as_array(value) for value in step] for step in steps]


def _as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            return value.detach().float().numpy().astype(BFLOAT16)
        return value.detach().numpy()
    return value
