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

from .programs_compare import BFLOAT16, RULES, Tolerances, difference, dtype_name
from .programs_export import Exported, ExportError, Flavour, as_graphs, first_line, lower, trace
from .programs_model import Model, call_inputs, eager, run_calls

Steps = list[list[Any]]


@dataclass(frozen=True)
class Verdict:
    """What became of one program file.

    ``kind``: right (as torch has it); refused (by one of our errors); follows stock (as the stock runtime has it, which
    is not as torch has it); follows file (as torch has what the exporter made of the model, or its dtypes); wrong; not
    exported.
    """

    kind: str
    detail: str = ""
    exported: Exported | None = field(default=None, repr=False)
    expected: Steps | None = field(default=None, repr=False)
    rules: str = "host"
    stock: str = ""  # how the stock runtime differs from torch, or why it refuses


def examine(model: Model, flavour: Flavour, stage: Callable[[str], None] = lambda name: None) -> Verdict:
    """The verdict on one program. ``stage`` hears what begins, for the case that it never ends."""
    stage("torch")
    try:
        right = as_arrays(eager(model, flavour.vulkan or flavour.share_buffers))
    except Exception as error:  # other inputs than those that it was drawn with, such as a division by zero
        return Verdict("not exported", f"torch: {first_line(error)}")
    if flavour.vulkan and any(map(_is_beyond_32_bits, chain(*right))):
        flavour = Flavour(vulkan=False)
    stage("export")
    try:
        traced = trace(model)
        exported = lower(traced, flavour)
    except ExportError as error:
        return Verdict("not exported", str(error))
    rules = "host" if not flavour.vulkan else "half" if flavour.force_fp16 else "delegate"
    stage("ours")
    ours, refusal, fault = _ours(exported, model)
    problem = refusal or fault or difference_of_steps(ours, right, RULES[rules])
    if flavour.vulkan and problem is None:
        return Verdict("right", "", exported, right, rules)
    # The stock runtime has no such delegate here, so it tells what the model means to it without any.
    stage(f"stock, ours was {'right' if problem is None else 'refused' if refusal else 'wrong'}")
    try:
        stock, stock_problem = _stock(exported if not flavour.vulkan else lower(traced, Flavour(vulkan=False)), model)
    except ExportError as error:
        stock, stock_problem = None, f"refuses: {error}"
    stock_problem = stock_problem or difference_of_steps(stock, right, RULES["host"]) or ""
    if problem is None:
        return Verdict("right", "", exported, right, rules, stock_problem)
    if refusal is not None:
        return Verdict("refused", refusal, exported, right, rules, stock_problem)
    if ours is not None and stock is not None and difference_of_steps(ours, stock, RULES[rules]) is None:
        return Verdict("follows stock", problem, exported, stock, rules, stock_problem)
    stage("exporter's graphs")
    for expected in (_as_stated(exported, model, right), _of_graphs(traced, model, flavour)):
        if ours is not None and expected is not None and difference_of_steps(ours, expected, RULES[rules]) is None:
            return Verdict("follows file", problem, exported, expected, rules, stock_problem)
    detail = f"{problem} (stock: {stock_problem})" if stock_problem else problem
    if ours is not None and stock is not None and stock_problem:
        detail += f" (ours against stock: {difference_of_steps(ours, stock, RULES[rules])})"
    return Verdict("wrong", detail, exported, right, rules, stock_problem)


def _of_graphs(traced: dict[str, Any], model: Model, flavour: Flavour) -> Steps | None:
    """What torch answers for the exporter's own graphs; None where it does not run them."""
    try:
        graphs = list(as_graphs(traced, flavour).values())

        def share(written: int) -> None:
            """Methods share buffers by name, whatever dtype each graph has come to."""
            buffers = dict(graphs[written].named_buffers())
            for graph in graphs if flavour.vulkan or flavour.share_buffers else ():
                for name, buffer in graph.named_buffers():
                    if name in buffers:
                        buffer.data = buffers[name].data

        return as_arrays(run_calls(model, graphs, share))
    except Exception:
        return None


def _as_stated(exported: Exported, model: Model, right: Steps) -> Steps:
    """The answers in the dtypes that the file states, which are not always the model's."""
    with executorch_webgpu.Runtime.get().load_program(exported.program) as program:
        stated = [program.metadata(method.name).outputs for method in model.methods]
    steps = []
    for call, step in zip(model.calls, right, strict=True):
        outputs = stated[call.method]
        same = len(outputs) == len(step)
        steps.append([_cast(v, o) for v, o in zip(step, outputs, strict=True)] if same else step)
    return steps


def _cast(value: Any, stated: Any) -> Any:
    dtype = getattr(stated, "dtype", None)
    if not isinstance(value, np.ndarray) or dtype is None or dtype == dtype_name(value):
        return value
    return value.astype(np.float32).astype(BFLOAT16) if dtype == "bfloat16" else value.astype(dtype)


def _is_beyond_32_bits(value: Any) -> bool:
    wide = isinstance(value, np.ndarray) and value.dtype == np.int64 and value.size > 0
    return wide and not -(2**31) <= int(value.min()) <= int(value.max()) < 2**31


def _ours(exported: Exported, model: Model) -> tuple[Steps | None, str | None, str | None]:
    """Our answers, or our refusal, or another exception, which is a fault."""
    try:
        return run_ours(exported, model), None, None
    except Error as error:
        return None, f"{type(error).__name__}: {error}", None
    except Exception as error:
        return None, None, f"{type(error).__name__}: {error}"


def _stock(exported: Exported, model: Model) -> tuple[Steps | None, str | None]:
    try:
        return run_stock(exported, model), None
    except Exception as error:
        return None, f"refuses: {first_line(error)}"


def difference_of_steps(got: Steps | None, wanted: Steps, tolerances: Tolerances) -> str | None:
    if got is None:
        return "no answer"
    for step, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if problem := difference(a, b, tolerances):
            return f"step {step}, {problem}"
    return None


def run_stock(exported: Exported, model: Model) -> Steps:
    """What the stock runtime answers to every call."""
    with _files(exported) as (file, data):
        options: dict[str, Any] = {"data_path": data[0]} if data else {}
        program = StockRuntime.get().load_program(file, verification=Verification.Minimal, **options)
        steps = []
        for call in model.calls:
            method = program.load_method(model.methods[call.method].name)
            assert method is not None
            inputs = [_dense(value) for value in _cloned(call_inputs(model, call))]
            steps.append(_cloned(method.execute(inputs)))  # an output may lie where an input does
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


def _dense(value: Any) -> Any:
    """An input as the stock runtime takes it: contiguous or channels-last."""
    if not isinstance(value, torch.Tensor) or value.is_contiguous():
        return value
    return value if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) else value.contiguous()


def as_arrays(steps: Sequence[Sequence[Any]]) -> Steps:
    """Tensors as NumPy arrays. bfloat16, which NumPy lacks, becomes float32 of a dtype that says so."""
    return [[_as_array(value) for value in step] for step in steps]


def _as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            return value.detach().float().numpy().astype(BFLOAT16)
        return value.detach().numpy()
    return value
