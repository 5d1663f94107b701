"""Models through the stock exporter, with the options that people use."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.lowered_backend_module import get_lowered_submodules
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch import nn
from torch.export import Dim, ExportedProgram

from .programs_cheap import make_export_cheap
from .programs_model import DYNAMIC_MAX, DYNAMIC_MIN, Model, Source, build, method_inputs

# Operators that a flavour may leave to the host, by their name in the edge dialect.
BLOCKABLE = (
    "aten.add.Tensor",
    "aten.mul.Tensor",
    "aten.sub.Tensor",
    "aten.view_copy.default",
    "aten.slice_copy.Tensor",
    "aten.select_copy.int",
    "aten.permute_copy.default",
    "aten.cat.default",
    "aten.expand_copy.default",
    "aten.unsqueeze_copy.default",
    "aten.squeeze_copy.dims",
    "aten.clone.default",
    "aten.where.self",
    "aten.relu.default",
    "aten.abs.default",
    "aten.neg.default",
    "aten.clamp.default",
    "aten.sum.dim_IntList",
    "aten.amax.default",
    "aten.div.Tensor",
    "aten.div.Tensor_mode",
    "aten.gt.Scalar",
    "aten.eq.Tensor",
    "aten.le.Scalar",
    "aten.sigmoid.default",
    "aten.full.default",
    "aten.full_like.default",
    "aten.copy.default",
    "aten.add.Scalar",
    "aten.mul.Scalar",
    "dim_order_ops._to_dim_order_copy.default",
    "dim_order_ops._clone_dim_order.default",
)


@dataclass(frozen=True)
class Flavour:
    """Options of an export."""

    vulkan: bool
    alias_buffer_mutations: bool = True
    force_fp16: bool = False
    skip_bool_tensors: bool = False
    blocked: frozenset[str] = frozenset()
    external_constants: bool = False
    skip_dim_order: bool = False
    remove_views: bool = True
    reinplace: bool = False
    share_buffers: bool = True
    plan_inputs: bool = True
    keep_state: bool = True

    def __str__(self) -> str:
        changed = [
            f"{k}={sorted(v) if isinstance(v, frozenset) else v}" for k, v in vars(self).items() if v != _DEFAULTS[k]
        ]
        return f"Flavour({', '.join(changed)})"


_DEFAULTS: dict[str, Any] = {"vulkan": None} | {
    name: field.default for name, field in Flavour.__dataclass_fields__.items() if name != "vulkan"
}


@dataclass(frozen=True)
class Exported:
    """A program file, and its data files by name."""

    program: bytes
    data: dict[str, bytes]


class ExportError(Exception):
    """The stock exporter refuses the model."""


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def trace(model: Model) -> dict[str, ExportedProgram]:
    """Every method of a model as an exported program; ExportError where torch cannot."""
    make_export_cheap()
    module = build(model)
    try:
        with _quiet():
            return {method.name: _traced(module, method) for method in model.methods}
    except Exception as error:  # the exporter's own errors are of every kind
        raise ExportError(f"torch.export: {first_line(error)}") from error


def _traced(module: nn.Module, method: Source) -> ExportedProgram:
    shapes: list[Any] = []
    size = Dim("size", min=DYNAMIC_MIN, max=DYNAMIC_MAX)
    for described in method.inputs:
        symbol = Dim.DYNAMIC if described.filled is None else dict.fromkeys(described.dynamic, size)
        shapes.append(symbol if described.dynamic else None)
    inputs = method_inputs(method, 0)
    forward = type(module).forward
    try:
        type(module).forward = getattr(type(module), method.name)
        return torch.export.export(module, inputs, dynamic_shapes=tuple(shapes) if any(shapes) else None, strict=False)
    finally:
        type(module).forward = forward


def lower(traced: dict[str, ExportedProgram], flavour: Flavour) -> Exported:
    """A program file of traced methods; ExportError where the exporter refuses."""
    partitioner = None
    if flavour.vulkan:
        options: dict[str, Any] = {"alias_buffer_mutations": flavour.alias_buffer_mutations}
        if flavour.force_fp16:
            options["force_fp16"] = True
        if flavour.skip_bool_tensors:
            options["skip_bool_tensors"] = True
        if flavour.external_constants:
            options["external_constants_max_data_bytes"] = 1 << 20
        partitioner = [
            VulkanPartitioner(options, operator_blocklist=[_edge_operator(name) for name in flavour.blocked])
        ]
    state = [InitializedMutableBufferPass(_buffers(traced))] if flavour.keep_state else []
    config = ExecutorchBackendConfig(
        passes=state,
        remove_view_copy=flavour.remove_views,
        run_reinplace_pass=flavour.reinplace,
        external_constants=flavour.external_constants,
        emit_mutable_buffer_names=flavour.share_buffers and len(traced) > 1,
        memory_planning_pass=MemoryPlanningPass(
            alloc_graph_input=flavour.plan_inputs,
            share_mutable_buffers=flavour.share_buffers and len(traced) > 1,
        ),
    )
    edge = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=flavour.skip_dim_order)
    try:
        with _quiet():
            manager = to_edge_transform_and_lower(traced, partitioner=partitioner, compile_config=edge)
            _check_buffers([manager.exported_program(name) for name in traced])
            program = manager.to_executorch(config)
            data = {name: bytes(cord) for name, cord in (program._tensor_data or {}).items()}
            return Exported(program.buffer, data)
    except ExportError:
        raise
    except Exception as error:  # the exporter's own errors are of every kind
        raise ExportError(f"executorch: {first_line(error)}") from error


def as_graphs(traced: dict[str, ExportedProgram], flavour: Flavour) -> dict[str, nn.Module]:
    """What the exporter makes of every method before it delegates or plans anything, as modules that torch runs."""
    edge = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=flavour.skip_dim_order)
    try:
        with _quiet():
            manager = to_edge_transform_and_lower(traced, compile_config=edge)
            return {name: manager.exported_program(name).module() for name in traced}
    except Exception as error:  # the exporter's own errors are of every kind
        raise ExportError(f"executorch: {first_line(error)}") from error


def _buffers(traced: dict[str, ExportedProgram]) -> list[str]:
    return sorted(set(chain(*(program.graph_signature.buffers for program in traced.values()))))


def _check_buffers(methods: list[ExportedProgram]) -> None:
    """Raise ExportError if a buffer that is written lies in several places, of which only one is written.

    The partitioner copies a buffer into a delegate that reads it, even if the host, another delegate or another method
    writes it.
    """
    delegates = [module.original_module for m in methods for _, module, _ in get_lowered_submodules(m.graph_module)]
    held = [set(part.graph_signature.inputs_to_buffers.values()) for part in [*methods, *delegates]]
    written = set(chain(*(part.graph_signature.buffers_to_mutate.values() for part in [*methods, *delegates])))
    places = Counter(chain(*held))
    delegated = set(chain(*held[len(methods) :]))
    if copied := sorted(name for name in written & delegated if places[name] > 1):
        raise ExportError(f"a buffer that is written has a copy in a delegate: {', '.join(copied)}")


def _edge_operator(name: str) -> Any:
    operator = exir_ops.edge
    for part in name.split("."):
        operator = getattr(operator, part)
    return operator


def first_line(error: Exception) -> str:
    """An exception in short."""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:160]}"
