"""Which adapter is the GPU that Ray gave to an actor.

Ray counts GPUs as the vendor's tools do, in the order of the PCI bus. WebGPU tells neither the bus nor a UUID, and
does not heed CUDA_VISIBLE_DEVICES; it lists a machine's GPUs in the order of the Vulkan loader, which on Linux is that
of the PCI bus, too. So Ray's GPU n is the n-th hardware adapter of an engine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

import ray

from ..errors import InvalidInputError, NoAdapterError
from ..gpu.capabilities import AdapterInfo
from ..gpu.device import list_adapters

_HARDWARE = ("DiscreteGPU", "IntegratedGPU")  # the first kind that there is


def assigned_adapter(engine: str | None = None) -> tuple[str | None, int | str | None]:
    """(engine, adapter), as ``Runtime.get`` takes them, of the GPU that Ray gave to this actor, replica or task.

    ``engine``: by default ET_WEBGPU_ENGINE, else the one that lists more GPUs, of both Dawn. Where Ray gave no GPU, and
    where ET_WEBGPU_ADAPTER names an adapter, the adapter is None: that one, or the most capable one, for all.
    Raises InvalidInputError when Ray gave several GPUs, NoAdapterError when no adapter is the one that it gave.
    """
    given = gpus_of_this_process()
    if not given or os.environ.get("ET_WEBGPU_ADAPTER"):
        return engine, None
    if len(given) > 1:
        raise InvalidInputError(f"Ray gave {len(given)} GPUs where one engine runs: ask for num_gpus=1")
    (gpu,) = given
    return adapter_of_gpu(int(gpu) if gpu.isdecimal() else _number_of_uuid(gpu), _adapters_of(engine))


def check_adapters(gpus: int, engine: str | None = None) -> None:
    """Raises NoAdapterError unless each of the first ``gpus`` GPUs of this machine is an adapter of ``engine``."""
    if gpus and not os.environ.get("ET_WEBGPU_ADAPTER"):
        adapter_of_gpu(gpus - 1, _adapters_of(engine))


def _adapters_of(engine: str | None) -> list[AdapterInfo]:
    wanted = engine or os.environ.get("ET_WEBGPU_ENGINE") or "auto"
    return [adapter for adapter in list_adapters() if wanted in ("auto", adapter.engine)]


def gpus_of_this_process() -> list[str]:
    """What Ray gave to the actor or task that runs here: numbers, or UUIDs where CUDA_VISIBLE_DEVICES had such."""
    if not ray.is_initialized():
        return []
    return [str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def adapter_of_gpu(number: int, adapters: Sequence[AdapterInfo]) -> tuple[str, int]:
    """(engine, index) of the adapter that is GPU ``number`` of this machine: of the engine that lists more of them.

    Dawn shows one of several GPUs that are alike, wgpu-native all of them. Replicas of one machine so have one engine.
    Raises NoAdapterError when there are not so many.
    """
    hardware: list[AdapterInfo] = []
    for kind in _HARDWARE:
        hardware = hardware or [a for a in adapters if a.kind == kind]
    by_engine = {name: [a for a in hardware if a.engine == name] for name in ("dawn", "wgpu")}
    # On some systems an engine lists each GPU once for each of several backends, the best one first.
    by_engine = {name: [a for a in own if a.backend == own[0].backend] for name, own in by_engine.items() if own}
    listed = max(by_engine.values(), key=len, default=[])  # the first of equal ones
    if number >= len(listed):
        names = "; ".join(f"{a.engine} {a.index}: {a.name}" for a in listed) or "none"
        alike = "take the engine wgpu, as Dawn shows only one of GPUs that are alike" if "wgpu" not in by_engine else ""
        driver = "install the GPUs' Vulkan driver where Ray's workers run, or set ET_WEBGPU_ADAPTER"
        raise NoAdapterError(
            f"Ray gave GPU {number}, but the GPUs that WebGPU lists are {names}: {(listed and alike) or driver}"
        )
    return listed[number].engine, listed[number].index


def _number_of_uuid(uuid: str) -> int:
    """The number of an NVIDIA GPU, by its UUID or the beginning of it."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoAdapterError(f"Ray gave GPU {uuid}, and nvidia-smi does not say which one that is: {error}") from error
    matches = [number for number, each in enumerate(listed) if each.startswith(uuid)]
    if len(matches) != 1:
        raise NoAdapterError(f"Ray gave GPU {uuid}, but nvidia-smi lists {', '.join(listed)}: parts of GPUs have none")
    return matches[0]
