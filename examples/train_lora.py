"""Training on the GPU: a LoRA adapter beside frozen 4-bit layers learns to tell classes apart.

python examples/train_lora.py

One call of the program is one step: it computes the loss of a batch and its gradients, and AdamW changes the adapter,
which is the state of the loaded method. Forward: logits = head(tanh(base(x) + B(A(x)))).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from executorch_webgpu import Runtime
from executorch_webgpu.format.pte import save_program
from executorch_webgpu.format.vkgraph import DataType
from executorch_webgpu.models.builder import GraphBuilder, TensorRef
from executorch_webgpu.models.matrix import Matrix, QuantizedMatrix, matrix
from executorch_webgpu.models.program import assemble
from executorch_webgpu.models.weights import Weight, array_constant

FEATURES, HIDDEN, CLASSES, RANK, BATCH, GROUP = 64, 96, 12, 4, 32, 32
LEARNING_RATE, BETA1, BETA2, EPS, WEIGHT_DECAY = 0.01, 0.9, 0.95, 1e-8, 0.01
# A step is the same program every time, so moments are not corrected for their first steps.
BIAS_CORRECTIONS = 1.0, 1.0


def main(steps: int = 60, seed: int = 0) -> list[float]:
    """The loss of every step."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((CLASSES, FEATURES), np.float32)
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.pte"
        write_program(path, rng)
        with Runtime.get().load_program(path) as program, program.load_method("forward") as train:
            for _ in range(steps):
                labels = rng.integers(0, CLASSES, BATCH)
                x = centers[labels] + rng.standard_normal((BATCH, FEATURES), np.float32)
                loss, logits = train.execute([x, labels])
                losses.append(float(loss))
            accuracy = float((logits.argmax(axis=1) == labels).mean())
            print(
                f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; {accuracy:.0%} of the last batch were told apart before it"
            )
    return losses


def write_program(path: Path, rng: np.random.Generator) -> None:
    """The training step as a program with x [BATCH, FEATURES] and labels [BATCH] in, loss and logits out."""
    b = GraphBuilder()
    x, labels = b.input((BATCH, FEATURES)), b.input((BATCH,), DataType.INT32)
    base, head = _frozen("base", HIDDEN, FEATURES, rng), _frozen("head", CLASSES, HIDDEN, rng)
    down = b.state(array_constant("A", rng.standard_normal((RANK, FEATURES), np.float32) / FEATURES**0.5))
    up = b.state(array_constant("B", np.zeros((HIDDEN, RANK), np.float32)))

    # Forward.
    low = b.call("aten.linear.default", x, down, None, out=(BATCH, RANK))
    adapted = b.add(b.linear(x, base), b.call("aten.linear.default", low, up, None, out=(BATCH, HIDDEN)))
    hidden = b.call("aten.tanh.default", adapted, out=adapted.dims)
    logits = b.linear(hidden, head)
    loss, d_logits = b.calls("et_vk.fused_ce.default", logits, labels, float(BATCH), outs=[(), logits.dims])

    # Backward: through the frozen head, tanh, and both matrices of the adapter.
    d_hidden = _backward(b, d_logits, head)
    squares = b.mul(hidden, hidden)
    d_adapted = b.call("aten.sub.Tensor", d_hidden, b.mul(d_hidden, squares), 1, out=hidden.dims)
    d_up = b.call("et_vk.linear_dW.default", d_adapted, low, out=up.dims)
    d_low = b.call("aten.mm.default", d_adapted, up, out=low.dims)
    d_down = b.call("et_vk.linear_dW.default", d_low, x, out=down.dims)

    for parameter, gradient in ((down, d_down), (up, d_up)):
        _step(b, parameter, gradient)
    b.output(loss, logits)
    save_program(path, *assemble(b, keywords=[], metadata={}))


def _frozen(name: str, rows: int, width: int, rng: np.random.Generator) -> Matrix:
    values = rng.standard_normal((rows, width), np.float32) / width**0.5
    return matrix(Weight(name, (rows, width), lambda start, stop: values[start:stop]), "q4gsw", GROUP)


def _backward(b: GraphBuilder, d_out: TensorRef, w: Matrix) -> TensorRef:
    """The gradient of the input of a frozen layer."""
    assert isinstance(w, QuantizedMatrix)
    dims = (*d_out.dims[:-1], w.dims[1])
    return b.call("et_vk.linear_q4gsw_backward.default", d_out, w.packed, w.scales, w.group, out=dims)


def _step(b: GraphBuilder, parameter: TensorRef, gradient: TensorRef) -> None:
    moments = b.state(parameter.dims), b.state(parameter.dims)
    numbers = LEARNING_RATE, BETA1, BETA2, EPS, WEIGHT_DECAY, *BIAS_CORRECTIONS
    b.calls("et_vk.adamw_step.default", parameter, *moments, gradient, *numbers, outs=[parameter.dims] * 3)


if __name__ == "__main__":
    main()
