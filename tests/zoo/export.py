"""The zoo's models through the stock exporter, with torch's answers, as files."""

from __future__ import annotations

import copy
import importlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch.export import ExportedProgram

from executorch_webgpu.models.cache import exclusive
from tests.differential.programs_cheap import make_export_cheap
from tests.differential.programs_saved import Step, save_steps

from .files import program_path
from .model import MODELS, Inputs, Prepared

# Operators in the middle of models that "partial" leaves to the host.
BLOCKED = ("aten.add.Tensor", "aten.relu.default", "aten.gelu.default", "aten.sigmoid.default", "aten._softmax.default")


@dataclass(frozen=True)
class Exported:
    """A program file, its data files by name, and the calls with torch's answers."""

    program: bytes
    data: dict[str, bytes] = field(default_factory=dict)


importlib.import_module("executorch.kernels.quantized")  # registers the variants that write to an output


def traced(prepared: Prepared) -> dict[str, ExportedProgram]:
    """Every method of a model as an exported program, by name."""
    make_export_cheap()
    modules = prepared.methods or {"forward": prepared.module}
    programs = {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for name, module in modules.items():
            inputs = next(call_inputs(prepared, c) for c in prepared.calls if call_method(prepared, c) == name)
            inputs = prepared.example or inputs
            shapes = prepared.dynamic
            programs[name] = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=prepared.strict)
    return programs


def lowered(programs: dict[str, ExportedProgram], variant: str) -> Exported:
    """A program file of traced methods, by variant (``files.VARIANTS``)."""
    partitioner = None
    if variant != "portable":
        blocked = [_edge_operator(name) for name in BLOCKED] if variant == "partial" else []
        options = {"force_fp16": True} if variant == "half" else {}
        partitioner = [VulkanPartitioner(options, operator_blocklist=blocked)]
    buffers = sorted({name for program in programs.values() for name in program.graph_signature.buffers})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager = to_edge_transform_and_lower(
            programs, partitioner=partitioner, compile_config=EdgeCompileConfig(_check_ir_validity=False)
        )
        program = manager.to_executorch(ExecutorchBackendConfig(passes=[InitializedMutableBufferPass(buffers)]))
    return Exported(program.buffer, {name: bytes(cord) for name, cord in (program._tensor_data or {}).items()})


def call_method(prepared: Prepared, call: Inputs) -> str:
    return call[0] if prepared.methods else "forward"


def call_inputs(prepared: Prepared, call: Inputs) -> Inputs:
    return call[1:] if prepared.methods else call


def eager_steps(prepared: Prepared) -> list[Step]:
    """torch's answers to a model's calls, in the order and form in which a program gives them."""
    # A copy, since calls may change buffers and the export begins with them as they were.
    modules = copy.deepcopy(prepared.methods or {"forward": prepared.module})
    steps = []
    with torch.no_grad():
        for call in prepared.calls:
            name, inputs = call_method(prepared, call), call_inputs(prepared, call)
            given = [_as_array(value) for value in torch.utils._pytree.tree_leaves(inputs)]
            answer = modules[name](*[v.clone() if isinstance(v, torch.Tensor) else v for v in inputs])
            steps.append(Step(name, given, [_as_array(v) for v in torch.utils._pytree.tree_leaves(answer)]))
    return steps


def _as_array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone(memory_format=torch.contiguous_format).numpy()


def export_variants(name: str, variants: list[str], full: bool = False) -> dict[str, Path]:
    """The programs of a model by variant, exported unless that was done before. Raises what the exporter raises."""
    paths = {variant: program_path(name, variant, full) for variant in variants}
    with exclusive(next(iter(paths.values())).with_name(f"{name}-{full}")):
        missing = {variant: path for variant, path in paths.items() if not path.exists()}
        if missing:
            torch.manual_seed(0)
            prepared = MODELS[name].prepare(full)
            steps = eager_steps(prepared)
            for variant, path in missing.items():
                exported = lowered(traced(prepared), variant)  # lowering changes what was traced
                for data, content in exported.data.items():
                    path.with_name(f"{path.stem}_{data.removesuffix('.ptd')}.ptd").write_bytes(content)
                save_steps(path, steps, "half" if variant == "half" else "delegate", "", "", "")
                partial = path.with_suffix(".partial")
                partial.write_bytes(exported.program)
                partial.rename(path)
    return paths


def _edge_operator(name: str) -> Any:
    operator = exir_ops.edge
    for part in name.split("."):
        operator = getattr(operator, part)
    return operator
