"""What a program calls: every operator with its count, and the kinds of arguments that it is given."""

from __future__ import annotations

from collections import Counter
from typing import Any

from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.vkgraph import ValueList, VkTensor, read_vkgraph

Calls = Counter[tuple[str, str]]  # by name and description of the arguments


def delegate_calls(file: Any, plan: schema.ExecutionPlan) -> Calls:
    found: Calls = Counter()
    for delegate in plan.delegates:
        graph = read_vkgraph(file.delegate_data(delegate), file.data)
        for call in graph.chain:
            shown = ", ".join(_vk_value(graph, i) for i in call.args)
            found[call.name, shown] += 1
    return found


def _vk_value(graph: Any, index: int) -> str:
    value = graph.values[index]
    value = getattr(value, "value", value)
    if isinstance(value, VkTensor):
        constant = "const " if value.constant_id >= 0 else ""
        return f"{constant}{value.datatype.name.lower()}{list(value.dims)}"
    if isinstance(value, ValueList):
        return "(" + ", ".join(_vk_value(graph, i) for i in value.items) + ")"
    return _plain(value)


def host_calls(plan: schema.ExecutionPlan) -> Calls:
    found: Calls = Counter()
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.call
            if isinstance(call, schema.KernelCall):
                operator = plan.operators[call.op_index]
                name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
                found[name, ", ".join(_value(plan, i) for i in call.args)] += 1
            elif not isinstance(call, schema.DelegateCall):
                found[type(call).__name__, ""] += 1
    return found


def _value(plan: schema.ExecutionPlan, index: int) -> str:
    if index < 0:
        return "None"
    value = plan.values[index].value
    if isinstance(value, schema.Tensor):
        constant = "const " if value.is_constant else ""
        order = tuple(value.dim_order)
        layout = "" if order == tuple(range(len(order))) else f" order{list(order)}"
        dynamic = "" if value.shape_dynamism is schema.ShapeDynamism.STATIC else "~"
        return f"{constant}{value.scalar_type.name.lower()}{dynamic}{list(value.sizes)}{layout}"
    if isinstance(value, schema.TensorList | schema.OptionalTensorList):
        return "(" + ", ".join(_value(plan, i) for i in value.items) + ")"
    if isinstance(value, schema.IntList if hasattr(schema, "IntList") else ()):
        return "[" + ", ".join(_value(plan, i) for i in value.items) + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
