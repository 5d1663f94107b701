"""Which adapter is the GPU that Ray gave: by the order in which an engine lists hardware."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import ray

from executorch_webgpu.errors import InvalidInputError, NoAdapterError
from executorch_webgpu.gpu.capabilities import AdapterInfo
from executorch_webgpu.ray.adapters import adapter_of_gpu, assigned_adapter, gpus_of_this_process

GPU = AdapterInfo(
    engine="wgpu",
    index=0,
    name="NVIDIA H100",
    vendor="NVIDIA",
    kind="DiscreteGPU",
    backend="Vulkan",
    f16=True,
    subgroups=True,
    subgroup_matrix=False,
    timestamps=True,
    max_buffer_bytes=1,
    max_binding_bytes=1,
    max_workgroup_bytes=1,
    max_invocations=1,
)
CPU = replace(GPU, name="llvmpipe", kind="CPU")


def listed(*adapters: AdapterInfo) -> list[AdapterInfo]:
    """With the indices that engines give them."""
    counts: dict[str, int] = {}
    found = []
    for adapter in adapters:
        index = counts.get(adapter.engine, 0)
        counts[adapter.engine] = index + 1
        found.append(replace(adapter, index=index))
    return found


def test_identical_gpus_are_told_apart_by_their_order() -> None:
    adapters = listed(CPU, GPU, GPU, replace(GPU, engine="dawn"), replace(GPU, engine="dawn"))
    assert [adapter_of_gpu(number, adapters) for number in range(2)] == [("dawn", 0), ("dawn", 1)]
    only_wgpu = [adapter for adapter in adapters if adapter.engine == "wgpu"]
    assert [adapter_of_gpu(number, only_wgpu) for number in range(2)] == [("wgpu", 1), ("wgpu", 2)]


def test_a_gpu_counts_once_and_before_what_is_built_in() -> None:
    built_in, other_backend = replace(GPU, kind="IntegratedGPU"), replace(GPU, backend="D3D11")
    adapters = listed(built_in, GPU, GPU, other_backend, other_backend)
    assert [adapter_of_gpu(number, adapters) for number in range(2)] == [("wgpu", 1), ("wgpu", 2)]
    with pytest.raises(NoAdapterError, match="Ray gave GPU 2, but the GPUs that WebGPU lists are wgpu 1: NVIDIA H100"):
        adapter_of_gpu(2, adapters)
    assert adapter_of_gpu(0, listed(built_in)) == ("wgpu", 0)


def test_the_engine_that_shows_all_gpus_is_taken_for_all() -> None:
    """Dawn shows one of GPUs that are alike."""
    adapters = listed(GPU, GPU, replace(GPU, engine="dawn"))
    assert [adapter_of_gpu(number, adapters) for number in range(2)] == [("wgpu", 0), ("wgpu", 1)]
    assert adapter_of_gpu(0, listed(GPU, replace(GPU, engine="dawn"))) == ("dawn", 0)
    with pytest.raises(NoAdapterError, match="lists are dawn 0: NVIDIA H100: take the engine wgpu, as Dawn shows only"):
        adapter_of_gpu(1, listed(replace(GPU, engine="dawn")))


def test_a_machine_without_gpus() -> None:
    with pytest.raises(NoAdapterError, match="are none: install the GPUs' Vulkan driver"):
        adapter_of_gpu(0, listed(CPU))
    assert assigned_adapter("wgpu") == ("wgpu", None)


@pytest.mark.parametrize("listed", ["GPU-aaaa-1\nGPU-bbbb-2\n", ""])
def test_uuids(listed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    from executorch_webgpu.ray.adapters import _number_of_uuid

    if listed:
        assert [_number_of_uuid(uuid) for uuid in ("GPU-aaaa-1", "GPU-bbbb")] == [0, 1]
    with pytest.raises(NoAdapterError, match="parts of GPUs have none"):
        _number_of_uuid("MIG-cccc")


@pytest.mark.slow
def test_what_ray_gives_to_a_task(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster

    @ray.remote(num_cpus=0)
    def given() -> tuple[list[str], object]:
        return gpus_of_this_process(), assigned_adapter()

    assert ray.get(given.remote()) == ([], (None, None))
    monkeypatch.setattr("executorch_webgpu.ray.adapters.gpus_of_this_process", lambda: ["0", "1"])
    with pytest.raises(InvalidInputError, match="ask for num_gpus=1"):
        assigned_adapter()
    monkeypatch.setenv("ET_WEBGPU_ADAPTER", "llvmpipe")
    assert assigned_adapter() == (None, None)
