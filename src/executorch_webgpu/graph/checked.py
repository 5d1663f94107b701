"""Steps that run call by call, each held against its operator's reference.

Before a call, everything that it reads is read back from the device; that goes through the reference, and what the
call then has written is compared with it. So an error is found where it arises, not where it shows. A value that
changes between two calls though none writes it is an error, too. Results begin as NaN, so that an element that no
invocation writes is seen. Slow: each call is a submission of its own, which the host waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Divergence, DivergenceError
from ..gpu.buffers import Readback, upload
from ..ops.values import LiveTensor, SymInt, Tensor
from .build import OpCall
from .memory import Kind
from .reference import REFUSALS, References
from .state import GraphState
from .tolerance import allowed_error, furthest_off, sensitivity

if TYPE_CHECKING:
    from .execute import GraphExecutor

_NAN, _NANS_OF_16_BITS = 0x7FC00001, {"float16": 0x7E007E00, "bfloat16": 0x7FC07FC0}


class CheckedSteps:
    """Runs the steps of one graph and checks each of their calls.

    ``rounded``: products of numbers rounded to float16 are what was asked for (``matmul_precision="high"``).
    """

    def __init__(self, executor: GraphExecutor, rounded: bool) -> None:
        self._executor = executor
        self._references = References(executor.graph, rounds=True)
        self._readback = Readback(executor.device, "checked values")
        self._rounded = rounded
        self._last_reader = {t.id: call.index for call in executor.graph.calls for t in call.inputs}
        self._held: dict[int, bytes] = {}  # what tensors held after the call that wrote them

    def run(self, state: GraphState) -> None:
        """Run a step that is planned and recorded, and whose inputs are uploaded; the caller holds the device's lock.

        Raises DivergenceError at the first call that is wrong. The state is then as that call has left it.
        """
        self._held.clear()
        with np.errstate(all="ignore"):
            for call in self._executor.graph.calls:
                self._check(call, state)
        self._held.clear()

    def close(self) -> None:
        """Free the staging buffer."""
        self._readback.close()

    # -- one call -----------------------------------------------------------------------------------------------------

    def _check(self, call: OpCall, state: GraphState) -> None:
        before = self._before(call, state)
        self._poison(call, state)
        self._dispatch(call, state)
        values = {id: value.copy() if isinstance(value, np.ndarray) else value for id, value in before.items()}
        try:
            results = self._references.results(call, values)
        except REFUSALS as error:
            raise DivergenceError(f"{self._text(call)}: its reference refuses these values ({error})") from error
        wanted = {t.id: values[t.id] for t in call.mutated if t.id in values}
        wanted |= {value.id: result for value, result in zip(call.writes, results, strict=True)}
        for symint in (v for v in call.writes if isinstance(v, SymInt)):
            got, right = np.asarray(self._executor.plans.value(symint)), np.asarray(wanted[symint.id])
            self._require(call, symint, got, right, np.zeros(()))
        self._after(call, state, before, wanted)

    def _before(self, call: OpCall, state: GraphState) -> dict[int, Any]:
        """What the call reads, by id, as references take it. Checks that tensors hold what was written to them."""
        values: dict[int, Any] = {v.id: self._executor.plans.value(v) for v in call.reads if isinstance(v, SymInt)}
        for tensor, raw in self._read([v for v in call.reads if isinstance(v, Tensor)], state):
            values[tensor.id] = self._wide(tensor, raw, state)
            held = self._held.get(tensor.id)
            if held is not None and held != raw.tobytes():
                was = self._wide(tensor, np.frombuffer(held, raw.dtype).reshape(raw.shape), state)
                self._require(call, tensor, values[tensor.id], was, np.zeros(was.shape), changed=True)
            self._hold(call, tensor, raw)
        return values

    def _after(self, call: OpCall, state: GraphState, before: dict[int, Any], wanted: dict[int, Any]) -> None:
        """Compare the tensors that the call has written with what is wanted, by id."""
        storage_of, plan = self._executor.memory.storage_of, self._executor.plans.plans[call.index]
        changed = {storage_of[t.id] for t in call.mutated}
        self._held = {id: raw for id, raw in self._held.items() if storage_of[id] not in changed}
        written = {t.id: t for t in (*call.outputs, *call.mutated) if t.id in wanted}
        for tensor, raw in self._read(list(written.values()), state):
            got, right = self._wide(tensor, raw, state), np.asarray(wanted[tensor.id])
            if tensor.dtype == "bool":  # a word that is neither 0 nor 1 would be another number to who reads it so
                got, right = raw, right.astype(np.uint32)
            elif tensor.element.is_float:  # what the dtype cannot hold is infinite
                held = right.astype(tensor.element.numpy).astype(np.float64)
                right = np.where(np.isinf(held), held, right)
            allowed = allowed_error(call, plan.route, tensor, right, self._code_steps(tensor, state), self._rounded)
            if got.shape == right.shape and furthest_off(got, right, allowed) is not None:
                allowed = allowed + sensitivity(self._references, call, before, tensor, right)
            self._require(call, tensor, got, right, allowed)
            self._hold(call, tensor, raw)

    def _require(
        self,
        call: OpCall,
        value: Tensor | SymInt,
        got: np.ndarray,
        wanted: np.ndarray,
        allowed: np.ndarray,
        changed: bool = False,
    ) -> None:
        """Raise DivergenceError unless ``got`` is what is wanted. ``changed``: that is what it was when written."""
        name = self._name(call, value)
        if got.shape != wanted.shape:
            raise DivergenceError(
                f"{self._text(call)}: {name} has dims {list(got.shape)} where the reference has {list(wanted.shape)}"
            )
        found = furthest_off(got, wanted, allowed)
        if found is None:
            return
        dispatches = self._executor.plans.plans[call.index].dispatches
        divergence = Divergence(
            operator=call.name,
            call=call.index,
            node=self._text(call),
            value=name,
            shape=got.shape,
            dtype=value.dtype if isinstance(value, Tensor) else "int",
            index=found.index,
            got=got[found.index].item(),
            wanted=wanted[found.index].item(),
            allowed=found.allowed,
            off=found.off,
            kernels=() if changed else tuple(dict.fromkeys(dispatch.kernel for dispatch in dispatches)),
            changed=changed,
        )
        raise DivergenceError(str(divergence), divergence)

    # -- the device ---------------------------------------------------------------------------------------------------

    def _dispatch(self, call: OpCall, state: GraphState) -> None:
        commands = state.commands[call.index]
        if not commands:
            return
        device = self._executor.device
        encoder = device.encoder()
        with device.errors(f"recording {call.name}"):
            compute_pass = encoder.begin_compute_pass()
            for command in commands:
                compute_pass.set_pipeline(command.pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
            compute_pass.end()
            recorded = encoder.finish()
        device.submit([recorded])

    def _poison(self, call: OpCall, state: GraphState) -> None:
        """Fill memory that the call must write with NaN."""
        executor = self._executor
        if executor.plans.plans[call.index].alias_of is not None:
            return
        for tensor in map(executor.plans.tensor, call.outputs):
            if executor.memory.storages[executor.memory.storage_of[tensor.id]].kind is Kind.SHARED:
                word = _NANS_OF_16_BITS.get(tensor.dtype, _NAN)
                poison = np.full(-(-tensor.nbytes // 4), word, np.uint32)
                upload(executor.device, executor.buffer_of(tensor, state), poison)

    def _read(self, tensors: Sequence[Tensor], state: GraphState) -> list[tuple[Tensor, np.ndarray]]:
        """The elements of tensors as they lie in memory, at their live dims; of constants as the file has them."""
        executor = self._executor
        live = [executor.plans.tensor(t) for t in tensors]
        on_host = {t.id: array for t in live if (array := self._on_host(t)) is not None}
        on_device = [t for t in live if t.id not in on_host]
        encoder = executor.device.encoder()
        self._readback.copy(encoder, [(executor.buffer_of(t, state), 0, t.nbytes) for t in on_device])
        executor.device.submit([encoder.finish()])
        raw = dict(zip((t.id for t in on_device), self._readback.read(), strict=True))
        return [(t, raw[t.id].view(t.element.numpy).reshape(t.dims) if t.id in raw else on_host[t.id]) for t in live]

    def _on_host(self, tensor: LiveTensor) -> np.ndarray | None:
        """What the host knows better: constants that nothing writes, and inputs that no kernel reads."""
        if (constant := self._constant(tensor)) is not None:
            return self._executor.graph.constants[constant.id].array(constant).reshape(tensor.dims)
        if self._executor.is_bound(tensor):
            return None
        return np.zeros(tensor.dims, tensor.element.numpy) if tensor.host is None else tensor.host

    def _constant(self, tensor: Tensor) -> Tensor | None:
        """The constant that a tensor is, if nothing writes that."""
        storage = self._executor.memory.storages[self._executor.memory.storage_of[tensor.id]]
        return storage.constant if storage.kind is Kind.CONSTANT else None

    def _wide(self, tensor: Tensor, raw: np.ndarray, state: GraphState) -> np.ndarray:
        """Elements as references take them; codes of an int8 KV cache as what they stand for."""
        steps = self._code_steps(tensor, state)
        return self._references.wide(raw, tensor) if steps is None else raw.astype(np.float64) * steps

    def _code_steps(self, tensor: Tensor, state: GraphState) -> np.ndarray | None:
        """What a code of an int8 KV cache counts, [1, C, H, 1]."""
        if tensor.scales is None:
            return None
        ((_, scales),) = self._read([tensor.scales], state)
        return scales.astype(np.float64)[..., None]

    def _hold(self, call: OpCall, tensor: Tensor, raw: np.ndarray) -> None:
        """Remember what a tensor holds while a later call reads it."""
        if self._last_reader.get(tensor.id, -1) > call.index and self._constant(tensor) is None:
            self._held[tensor.id] = raw.tobytes()
        else:
            self._held.pop(tensor.id, None)

    # -- words --------------------------------------------------------------------------------------------------------

    def _text(self, call: OpCall) -> str:
        arguments = ", ".join(repr(self._executor.plans.live(arg)) for arg in call.args)
        return f"call {call.index}, {call.name}({arguments})"

    def _name(self, call: OpCall, value: Tensor | SymInt) -> str:
        """The operator's name for an argument, with its id."""
        for name, arg in call.named.items():
            for place, item in enumerate(arg if isinstance(arg, list) else [arg]):
                if getattr(item, "id", None) == value.id:
                    return f"{name}[{place}] (%{value.id})" if isinstance(arg, list) else f"{name} (%{value.id})"
        return f"%{value.id}"
