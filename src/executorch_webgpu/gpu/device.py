"""Adapters and devices: which GPU, through which engine, with which features and limits.

``list_adapters()`` names what there is, ``open_device()`` opens one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, DeviceError, DeviceLostError, Error, InvalidInputError, NoAdapterError
from .capabilities import KINDS, AdapterInfo, Features, Limits, lanes_of_name
from .engine import ENGINES, SETTING_UP, Engine, EngineErrors, load_engine
from .kernel import Kernels
from .locked import locked
from .trace import SUBMIT, WAIT, spanned

if TYPE_CHECKING:
    from .buffers import Buffer

# Optional features by engine; the first entries are worth the most when a driver refuses some of them.
_OPTIONAL = {
    "wgpu": ("shader-f16", "subgroup", "timestamp-query"),
    "dawn": ("shader-f16", "subgroups", "timestamp-query", "chromium-experimental-subgroup-matrix"),
}


@dataclass
class Memory:
    """GPU memory that our buffers hold on one device, in bytes."""

    live_bytes: int = 0
    live_buffers: int = 0
    peak_bytes: int = 0
    uploaded_bytes: int = 0  # so far,
    arrived_bytes: int = 0  # and of these the first ones, of which the engine needs no copy any more
    lock: RLock = field(default_factory=RLock, repr=False)  # the device's
    _unused: deque[tuple[int, Any]] = field(default_factory=deque, repr=False)  # bytes, raw buffer

    @property
    def staged_bytes(self) -> int:
        """Uploads that the engine may still hold a copy of."""
        return self.uploaded_bytes - self.arrived_bytes

    def add(self, nbytes: int) -> None:
        self.live_bytes += nbytes
        self.live_buffers += 1
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def remove(self, nbytes: int) -> None:
        self.live_bytes -= nbytes
        self.live_buffers -= 1

    def free(self, nbytes: int, raw: Any) -> None:
        """Destroy a buffer now, or, if another thread is at work on the device, in the next call that makes one.

        The garbage collector calls this in any thread and at any moment, so it must never wait.
        """
        self._unused.append((nbytes, raw))
        if self.lock.acquire(blocking=False):
            try:
                self.free_unused()
            finally:
                self.lock.release()

    def free_unused(self) -> None:
        """Destroy what could not be destroyed before."""
        while self._unused:
            try:
                nbytes, raw = self._unused.popleft()
            except IndexError:  # the garbage collector was faster
                return
            self.remove(nbytes)
            raw.destroy()


class Device(Closing):
    """An open GPU device.  Close it, or use it as a context manager, to free all of its memory.

    For threads: each call holds ``lock``, which is re-entrant, because Dawn's devices may not be used by two threads at
    once. A caller whose calls belong together, such as those of a step, holds it for all of them.
    """

    def __init__(self, engine: Engine, info: AdapterInfo, features: Features, raw: Any) -> None:
        self.engine = engine.name
        self.info = info
        self.features = features
        self.limits = Limits.of(raw)
        self.lock = self._lock = engine.device_lock()
        self.memory = Memory(lock=self.lock)
        self.buffers: WeakSet[Buffer] = WeakSet()  # those that close() must destroy
        self.raw = raw
        self.queue = raw.queue
        self._engine = engine
        self.kernels = Kernels(self)  # the one cache of shader modules, layouts and pipelines of this device
        self._closed = False
        self._lost: str | None = None
        engine.log.messages.clear()

    def __repr__(self) -> str:
        return f"<Device {self.info.name!r} ({self.engine}, {self.info.backend})>"

    @property
    def native(self) -> Any:
        """The engine's C functions; see ``Engine.native``."""
        return self._engine.native

    @property
    def usable(self) -> bool:
        """Neither closed nor known to be lost."""
        return not self._closed and self._lost is None

    @property
    def closed(self) -> bool:
        return self._closed

    def errors(self, doing: str, error: type[Error] = DeviceError) -> EngineErrors:
        """A context that turns whatever the engine raises into our exceptions; ``doing`` begins the message."""
        return self._engine.errors(doing, error, self._set_lost)

    def _set_lost(self, why: str) -> None:
        self._lost = why

    @locked
    def create_shader_module(self, label: str, code: str, checks: str) -> Any:
        """A raw shader module; ``checks`` are those of its kernel (wgsl.py)."""
        self.require_usable()
        return self._engine.create_shader_module(self.raw, label, code, checks)

    @locked
    def begin_compute_pipeline(self, descriptor: Mapping[str, Any]) -> Callable[[], Any]:
        """Have the engine compile a pipeline in the background; the function that it returns waits for it."""
        self.require_usable()
        return self._engine.begin_compute_pipeline(self.raw, descriptor)

    @property
    def timestamp_period(self) -> float:
        """Nanoseconds of a tick of the timestamps that passes write."""
        return self._engine.timestamp_period(self.queue)

    def encoder(self) -> Any:
        """A raw command encoder."""
        with self.lock, self.errors("creating a command encoder"):
            self.require_usable()
            return self.raw.create_command_encoder()

    @spanned("submit", SUBMIT)
    def submit(self, command_buffers: Sequence[Any]) -> int:
        """Hand finished command buffers to the queue.  Returns the number of the submission, for ``read``.

        Raises ClosedError, DeviceLostError or DeviceError.
        """
        return self.submit_untraced(command_buffers)

    def submit_untraced(self, command_buffers: Sequence[Any]) -> int:
        """``submit``, which no trace shows."""
        # wgpu-native aborts the process when a submission fails, so whatever can be known before is checked.
        with self.lock, self.errors("submitting work"):
            self.check()
            return self._engine.submit(self.queue, command_buffers)

    @spanned("readback", WAIT)
    def read(self, staging: Buffer, nbytes: int, submission: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The first bytes of a staging buffer that this submission filled, without waiting for later ones."""
        return self.fetch(staging, nbytes, submission)

    def fetch(self, staging: Buffer, nbytes: int, submission: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """``read``, which no trace shows."""
        with self.lock, self.errors("reading results back"):
            self.check()
            data = self._engine.read(self.raw, staging.raw, staging.size, submission)
            self.check()
        return np.frombuffer(data, np.uint8)[:nbytes]

    @spanned("wait", WAIT)
    @locked
    def wait(self) -> None:
        """Blocks until all submitted work is done."""
        self.check()
        with self.errors("waiting for the GPU"):
            self._engine.wait(self.raw)

    @locked
    def flush(self) -> None:
        """Send pending writes and wait; only then are their staging copies and destroyed buffers freed."""
        for _ in range(2 if self.engine == "dawn" else 1):  # Dawn frees in one round what ended in the last
            self.submit([])
            self.wait()
        self.memory.arrived_bytes = self.memory.uploaded_bytes

    def check(self) -> None:
        """Raises what the engine reported outside any call: DeviceLostError or DeviceError."""
        self.require_usable()
        if not self._engine.log.messages:
            return
        with self.lock:
            self._raise_reported()

    def _raise_reported(self) -> None:
        messages = self._engine.log.take()
        lost = [m for m in messages if "lost" in m.lower()]
        if lost:
            self._probe()
        others = [m for m in messages if m not in lost]
        if others:
            raise DeviceError(f"the GPU reported an error: {' '.join(others[0].split())}")

    @locked
    def close(self) -> None:
        """Destroy the device with all of its buffers.  Closing twice is allowed."""
        if self._closed:
            return
        # wgpu-native keeps the buffers of a destroyed device until their last handle goes, so they go first.
        for buffer in list(self.buffers):
            buffer.destroy()
        self.memory.free_unused()
        with suppress(DeviceError):  # nothing can be sent to a lost device
            self.flush()
        self._closed = True
        self.kernels = Kernels(self)  # without what the old ones hold
        self.raw.destroy()

    def _probe(self) -> None:
        """Raises DeviceLostError if this device is gone; the report does not say which one was lost."""
        with self.errors("using it"):
            self.raw.create_buffer(size=16, usage=self._engine.api.BufferUsage.COPY_DST).destroy()

    def require_usable(self) -> None:
        """Raises ClosedError or DeviceLostError when nothing can be done with this device any more."""
        if self._closed:
            raise ClosedError("the GPU device is closed; open another one")
        if self._lost:
            raise DeviceLostError(self._lost)


def list_adapters() -> list[AdapterInfo]:
    """Every adapter of every installed engine."""
    with SETTING_UP:
        return [info for name in ENGINES for info, _ in _adapters_of(name)]


def open_device(engine: str | None = None, adapter: int | str | None = None, *, trusted: bool | None = None) -> Device:
    """Open a device with every feature and limit that its adapter has.

    ``engine`` is ``"auto"``, ``"wgpu"`` or ``"dawn"`` (default: ``ET_WEBGPU_ENGINE``, else ``"auto"``: Dawn
    when it is installed and sees a GPU, because it encodes faster and has tensor cores, else wgpu).
    ``adapter`` is an index among the engine's adapters or a part of a name, in any case (default:
    ``ET_WEBGPU_ADAPTER``, else the best one).  ``trusted`` (default: ``ET_WEBGPU_TRUSTED=1``) lets Dawn skip
    validation and bounds checks; wgpu has no such choice.

    Raises NoAdapterError, InvalidInputError for an unknown engine, or DeviceError.
    """
    engine = engine or os.environ.get("ET_WEBGPU_ENGINE") or "auto"
    if adapter is None:
        adapter = os.environ.get("ET_WEBGPU_ADAPTER") or None
    if trusted is None:
        trusted = os.environ.get("ET_WEBGPU_TRUSTED", "") not in ("", "0")
    if engine not in ("auto", *ENGINES):
        raise InvalidInputError(f"there is no engine {engine!r}; choose auto, wgpu or dawn")
    with SETTING_UP:
        found = _candidates(engine, adapter)
        info, raw_adapter = _choose(found, adapter)
        loaded = load_engine(info.engine)
        assert loaded is not None  # its adapter was just listed
        return _open(loaded, info, raw_adapter, trusted)


def open_null_device() -> Device:
    """A Dawn device without a GPU: it compiles WGSL with Tint and runs nothing.  Raises NoAdapterError."""
    with SETTING_UP:
        engine = _require_engine("dawn")
        raw_adapter = engine.null_adapter()
        return _open(engine, _info("dawn", 0, raw_adapter), raw_adapter, trusted=False)


def _require_engine(name: str) -> Engine:
    engine = load_engine(name)
    if engine is None:
        package = "executorch-webgpu[dawn]" if name == "dawn" else "wgpu"
        raise NoAdapterError(f"engine {name!r} is not installed: pip install '{package}'")
    return engine


def _info(engine: str, index: int, raw: Any) -> AdapterInfo:
    features, limits, info = raw.features, Limits.of(raw), raw.info
    kind = str(info["adapter_type"])
    return AdapterInfo(
        engine=engine,
        index=index,
        name=str(info["device"]),
        vendor=str(info["vendor"]),
        kind=kind if kind in KINDS else "Unknown",
        backend=str(info["backend_type"]),
        f16="shader-f16" in features,
        subgroups="subgroup" in features or "subgroups" in features,
        subgroup_matrix="chromium-experimental-subgroup-matrix" in features,
        timestamps="timestamp-query" in features,
        max_buffer_bytes=limits.max_buffer_bytes,
        max_binding_bytes=limits.max_binding_bytes,
        max_workgroup_bytes=limits.max_workgroup_bytes,
        max_invocations=limits.max_invocations,
    )


def _adapters_of(name: str) -> list[tuple[AdapterInfo, Any]]:
    engine = load_engine(name)
    if engine is None:
        return []
    raws = engine.adapters()
    # An application that made its own instance may show OpenGL twins of Vulkan devices.
    modern = [a for a in raws if not str(a.info["backend_type"]).startswith("OpenGL")]
    return [(_info(name, i, raw), raw) for i, raw in enumerate(modern or raws)]


def _candidates(engine: str, wanted: int | str | None) -> list[tuple[AdapterInfo, Any]]:
    """The adapters that a request for ``engine`` chooses from, the preferred engine's first."""
    if engine != "auto":
        _require_engine(engine)
        found = _adapters_of(engine)
    else:
        wgpu = _adapters_of("wgpu")
        # Both engines see the same GPUs, so where wgpu sees none, Dawn need not be loaded to look.
        dawn = _adapters_of("dawn") if _has_gpu(wgpu) or not wgpu or wanted is not None else []
        found = dawn + wgpu if _has_gpu(dawn) else wgpu + dawn
    if not found and engine == "dawn" and _adapters_of("wgpu"):
        raise NoAdapterError("Dawn accepts none of this machine's adapters; use engine 'wgpu', which does")
    if not found:
        raise NoAdapterError(
            "no GPU adapter was found; install a Vulkan driver (on Debian or Ubuntu the software one is: "
            "sudo apt install mesa-vulkan-drivers)"
        )
    return found


def _has_gpu(found: list[tuple[AdapterInfo, Any]]) -> bool:
    return any(info.kind in ("DiscreteGPU", "IntegratedGPU") for info, _ in found)


def _choose(found: list[tuple[AdapterInfo, Any]], wanted: int | str | None) -> tuple[AdapterInfo, Any]:
    if wanted is None:
        return min(found, key=lambda pair: KINDS.index(pair[0].kind))
    if isinstance(wanted, int) or wanted.isdecimal():
        matches = [pair for pair in found if pair[0].index == int(wanted)][:1]
    else:
        matches = [pair for pair in found if wanted.lower() in pair[0].name.lower()]
    if not matches:
        names = "; ".join(f"{info.engine} {info.index}: {info.name}" for info, _ in found)
        raise NoAdapterError(f"no adapter matches {wanted!r}; there are: {names}")
    return min(matches, key=lambda pair: KINDS.index(pair[0].kind))


def _open(engine: Engine, info: AdapterInfo, adapter: Any, trusted: bool) -> Device:
    raw = _request(engine, adapter, trusted)
    have = raw.features
    sizes = engine.subgroup_sizes(adapter)
    matrix = "chromium-experimental-subgroup-matrix" in have
    features = Features(
        f16="shader-f16" in have,
        subgroups="subgroup" in have or "subgroups" in have,
        subgroup_min_size=sizes[0],
        subgroup_max_size=sizes[1],
        timestamps="timestamp-query" in have,
        subgroup_matrix=matrix,
        subgroup_matrix_shapes=engine.subgroup_matrix_shapes(adapter) if matrix else (),
        byte_products=info.backend != "Metal",
        cpu=info.kind == "CPU",
        cpu_lanes=lanes_of_name(info.name) if info.kind == "CPU" else 0,
    )
    return Device(engine, info, features, raw)


def _request(engine: Engine, adapter: Any, trusted: bool) -> Any:
    """A raw device with all optional features, or with fewer when the driver refuses some."""
    wanted = [f for f in _OPTIONAL[engine.name] if f in adapter.features]
    refusal: Exception | None = None
    for features in _fewer(wanted):
        try:
            return engine.request_device(adapter, features, adapter.limits, trusted)
        except (engine.api.GPUError, RuntimeError) as exc:
            refusal = exc
    name = adapter.info["device"]
    raise DeviceError(f"adapter {name!r} gave no device: {' '.join(str(refusal).split())}")


def _fewer(features: list[str]) -> Iterable[list[str]]:
    """The whole list, then shorter ones from the back, down to none."""
    return (features[:n] for n in range(len(features), -1, -1))
