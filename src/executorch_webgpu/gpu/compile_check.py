"""Compile kernels on an engine without running them, so that tests can hold all WGSL to both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ..errors import InvalidInputError, LimitError
from .device import Device, open_device, open_null_device
from .kernel import DEFAULT_ROOTS, Kernels, check_limits
from .wgsl import KernelSource, Number


@cache
def _device(engine: str) -> Device:
    """One device for all checks of this process; Dawn's needs no GPU and has every feature."""
    if engine not in ("wgpu", "dawn"):
        raise InvalidInputError(f"there is no engine {engine!r}; choose wgpu or dawn")
    return open_null_device() if engine == "dawn" else open_device("wgpu")


@cache
def _kernels(engine: str, roots: tuple[Path, ...]) -> Kernels:
    return Kernels(_device(engine), roots)


def compile_check(
    engine: str,
    name: str,
    template: Mapping[str, object] | None = None,
    overrides: Mapping[str, Number] | None = None,
    roots: Sequence[Path] = DEFAULT_ROOTS,
) -> None:
    """Render and compile kernel ``name`` on ``"wgpu"`` (its best adapter) or ``"dawn"`` (no adapter).

    Raises KernelError with the engine's message.  Only the module is compiled, not the pipeline with its
    overrides, for a kernel that is larger than the device allows and for subgroup matrices on Dawn, whose
    workgroups must be multiples of a subgroup size that the null backend makes up.
    """
    kernels = _kernels(engine, tuple(roots))
    source = kernels.source(name, template)
    source.resolve_overrides(overrides or {})
    if _fits(source, overrides or {}, _device(engine)):
        kernels.pipeline(name, template, overrides)
    else:
        kernels.module(source)


def _fits(source: KernelSource, overrides: Mapping[str, Number], device: Device) -> bool:
    if device.info.backend == "Null" and "subgroup_matrix" in source.code:
        return False
    try:
        check_limits(source, overrides, device.limits)
    except LimitError:
        return False
    return True
