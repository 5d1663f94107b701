"""An operator beside torch's own: its reference, which the device is held against, and the device itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.registry import find

from .harness import ABSOLUTE, RELATIVE, In, OpProgram, Out, as_float64, assert_close

DEVICE_DTYPES = {torch.int64: "int32", torch.float64: "float32"}  # others keep their names


def by_torch(name: str, *args: Any) -> list[np.ndarray]:
    """The results of ``aten.<base>.<overload>``, with arrays for tensors."""
    namespace, base, overload = name.split(".")
    found = getattr(getattr(getattr(torch.ops, namespace), base), overload)(*map(_tensor, args))
    return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]


def _tensor(arg: Any) -> Any:
    return torch.from_numpy(arg) if isinstance(arg, np.ndarray) else arg


def check_reference(name: str, *args: Any, absolute: float = ABSOLUTE, relative: float = RELATIVE) -> None:
    """The reference gives what torch gives."""
    op = find(name)
    assert op is not None
    found = op.reference(*(as_float64(a) if isinstance(a, np.ndarray) else a for a in args))
    expected = by_torch(name, *args)
    for got, wanted in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        rounded = np.asarray(got) if wanted.dtype.kind != "f" else np.asarray(got, np.float64)
        assert_close(rounded, wanted, absolute, relative)


def check_device(device: Device, name: str, *args: Any, absolute: float = ABSOLUTE, relative: float = RELATIVE) -> None:
    """The device gives what torch gives, at these sizes."""
    expected = by_torch(name, *args)
    outs = [Out(e.shape, _dtype(e)) for e in expected]
    given = [In(a.shape, _dtype(a)) if isinstance(a, np.ndarray) else a for a in args]
    with OpProgram(device, name, given, outs if len(outs) > 1 else outs[0]) as program:
        program.poison()
        found = program.run([_on_device(a) for a in args if isinstance(a, np.ndarray)])
    for got, wanted in zip(found if len(outs) > 1 else [found], expected, strict=True):
        assert_close(got, wanted, absolute, relative)


def _dtype(array: np.ndarray) -> str:
    return DEVICE_DTYPES.get(torch.from_numpy(array).dtype, str(array.dtype))


def _on_device(array: np.ndarray) -> np.ndarray:
    layouts: dict[Any, Any] = {np.dtype(np.int64): np.int32, np.dtype(bool): np.uint32}
    return array.astype(layouts.get(array.dtype, array.dtype))
