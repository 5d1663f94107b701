"""``et-webgpu devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..gpu.capabilities import AdapterInfo


@click.command("devices")
def command() -> None:
    """List the adapters of every installed engine.

    The number and the name can be given to --adapter, the engine to --engine.
    """
    from ..errors import NoAdapterError
    from ..gpu.device import list_adapters
    from .tables import binary_size, console, table

    adapters = list_adapters()
    if not adapters:
        raise NoAdapterError(
            "no WebGPU adapter was found; install your GPU's Vulkan driver, or a software one "
            "(on Debian and Ubuntu: apt install mesa-vulkan-drivers)"
        )
    columns = ("Engine", "#>", "Adapter", "Kind", "Backend", "Features")
    limits = ("Buffer>", "Binding>", "Workgroup memory>", "Invocations>")
    made = table((*columns, *limits))
    for adapter in adapters:
        made.add_row(
            adapter.engine,
            str(adapter.index),
            adapter.name,
            adapter.kind,
            adapter.backend,
            ", ".join(_features(adapter)) or "none",
            binary_size(adapter.max_buffer_bytes),
            binary_size(adapter.max_binding_bytes),
            binary_size(adapter.max_workgroup_bytes),
            str(adapter.max_invocations),
        )
    console().print(made)


def _features(adapter: AdapterInfo) -> list[str]:
    """The optional features that kernels use, or that --profile needs."""
    present = {
        "f16": adapter.f16,
        "subgroups": adapter.subgroups,
        "subgroup matrix": adapter.subgroup_matrix,
        "timestamps": adapter.timestamps,
    }
    return [name for name, there in present.items() if there]
