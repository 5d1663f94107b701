"""Elementwise operators that only each other read become one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...ops.elementwise.chain import DTYPES, MOST_INPUTS, link
from ...ops.sizes import Sizes
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, sizes_of

_MOST_STEPS = 32  # of one kernel


def fuse_chains(graph: Graph) -> Graph:
    """The graph with ``elementwise_chain`` in the place of elementwise operators of one float dtype and one size."""
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in reversed(graph.calls):
        if call.index not in calls_at and _is_link(call, flow, sizes):
            chain = _chain_up_to(call, flow, sizes)
            if len(chain) > 1:
                calls_at |= {link.index: [] for link in chain}
                calls_at[call.index] = [_fused(chain)]
    return rewritten(graph, calls_at)


def _is_link(call: OpCall, flow: Dataflow, sizes: Sizes) -> bool:
    """Whether a call may be part of a chain: every operand has the sizes of the result, or one element."""
    if not call.op.elementwise or not flow.is_stateless(call):
        return False
    (out,) = call.outputs
    floats = out.dtype in DTYPES and all(t.dtype == out.dtype for t in call.inputs)
    whole = [t for t in call.inputs if not _is_single(t)]
    ranks = all(t.rank <= out.rank for t in call.inputs)
    fits = floats and ranks and bool(whole) and all(sizes.same(t, out) for t in whole)
    return fits and link(call.op, _scalars(call), out.dtype) is not None


def _scalars(call: OpCall) -> list[Any]:
    """The arguments of an elementwise operator beside its tensors."""
    return [arg for arg in call.args[:-1] if not isinstance(arg, Tensor)]


def _is_single(x: Tensor) -> bool:
    return all(n == 1 for n in x.max_dims)


def _chain_up_to(last: OpCall, flow: Dataflow, sizes: Sizes) -> list[OpCall]:
    """The calls, in program order, that ``last`` ends and nothing else reads."""
    chain = {last.index: last}
    while len(chain) < _MOST_STEPS:
        for tensor in _inputs(chain.values()):
            call = flow.producer(tensor)
            if (
                call is not None
                and _is_link(call, flow, sizes)
                and sizes.same(tensor, last.outputs[0])
                and flow.is_private(tensor)
                and all(reader.index in chain for reader in flow.readers(tensor))
                and len(_inputs((*chain.values(), call))) <= MOST_INPUTS
            ):
                chain[call.index] = call
                break
        else:
            break
    return [chain[index] for index in sorted(chain)]


def _inputs(chain: Iterable[OpCall]) -> list[Tensor]:
    """What the calls of a chain read and none of them writes, each once."""
    calls = list(chain)
    made = {call.outputs[0].id for call in calls}
    return list({t.id: t for call in calls for t in call.inputs if t.id not in made}.values())


def _fused(chain: list[OpCall]) -> OpCall:
    inputs = _inputs(chain)
    place = {tensor.id: i for i, tensor in enumerate([*inputs, *(call.outputs[0] for call in chain)])}
    steps = [[call.name, [place[t.id] for t in call.inputs], _scalars(call)] for call in chain]
    return make_call("et_webgpu.elementwise_chain.default", (inputs, steps, chain[-1].outputs[0]))
