"""The WebGPU implementations that we run on, under one small interface.

``wgpu`` (wgpu-native) and ``wgpudawn`` (Dawn) have the same Python API.  What differs is kept here: how an
instance is set up, how adapters are listed, and how errors arrive.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from threading import RLock
from typing import Any

from ..errors import DeviceError, DeviceLostError, Error
from .cffi_types import learn_types
from .pipeline_cache import dawn_cache

ENGINES = ("wgpu", "dawn")

# Held while engines are loaded, and adapters listed and opened: that changes the process's environment.
SETTING_UP = RLock()

_MODULE = {"wgpu": "wgpu", "dawn": "wgpudawn"}
_BACKEND = {"wgpu": "wgpu.backends.wgpu_native", "dawn": "wgpudawn.backends.dawn"}

# Dawn leaves these to us: f16 on NVIDIA's Vulkan driver and tensor cores are experimental to it, and it
# coarsens timestamps to 100 us, which is what a browser needs and a profiler does not.
_DAWN_ENABLE = ("allow_unsafe_apis", "vulkan_enable_f16_on_nvidia")
_DAWN_DISABLE = ("timestamp_quantization",)

# Only for kernels that one has tested: out-of-range accesses are no longer caught.
_DAWN_TRUSTED = ("skip_validation", "disable_robustness", "disable_workgroup_init")


_WAIT_NANOSECONDS = 100_000_000  # so that an interrupt gets through

# Subgroups of an adapter that does not tell their size. Vendors with one size for all, by PCI number: NVIDIA, Apple.
_ANY_SUBGROUP = (4, 128)
_SUBGROUP_OF_VENDOR = {0x10DE: (32, 32), 0x106B: (32, 32)}


class _ErrorLog(logging.Handler):
    """Keeps what an engine logs because no running call could raise it (callbacks, device lost)."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: deque[str] = deque(maxlen=32)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def take(self) -> list[str]:
        """The messages, which are then gone; what another thread adds meanwhile stays."""
        return [self.messages.popleft() for _ in range(len(self.messages))]


@dataclass(frozen=True)
class Engine:
    """An imported implementation with its instance set up."""

    name: str
    api: Any
    extras: Any
    log: _ErrorLog = field(repr=False)
    _lock: RLock = field(default_factory=RLock, repr=False)

    def device_lock(self) -> RLock:
        """What a new device holds in every call.

        One for all devices of Dawn, whose Python side keeps errors of any call until some call ends, and raises them
        there. wgpu-native's are kept by thread, so each of its devices has a lock of its own.
        """
        return self._lock if self.name == "dawn" else RLock()

    @cached_property
    def native(self) -> Any:
        """The module with the engine's C functions: ``lib``, the same checked, ``libf``, and ``ffi``."""
        return importlib.import_module(_BACKEND[self.name] + "._api")

    @cached_property
    def _on_mapped(self) -> Any:
        """A C callback that adds the status of a mapping to the list whose handle it is given.

        Made before there is a device: of two that two threads make at once, one would be freed while it is in use.
        """
        native = self.native
        return native.ffi.callback(
            "void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)",
            lambda status, _message, handle, _: native.ffi.from_handle(handle).append(status),
        )

    def adapters(self) -> list[Any]:
        """The engine's adapters, best backend first.

        ``WGPU_BACKEND_TYPE=Null`` gives Dawn's null backend, which compiles shaders but runs nothing.
        """
        with _no_device_select():
            if self.name == "dawn" and os.environ.get("WGPU_BACKEND_TYPE") == "Null":
                return [self.null_adapter()]
            return list(self.api.gpu.enumerate_adapters_sync())

    def null_adapter(self) -> Any:
        """Dawn's adapter without a device, whatever the environment says."""
        before = os.environ.get("WGPU_BACKEND_TYPE")
        os.environ["WGPU_BACKEND_TYPE"] = "Null"
        logger = logging.getLogger(_MODULE[self.name])
        level = logger.level
        logger.setLevel(logging.ERROR)  # it warns that a backend is forced
        try:
            return self.api.gpu.request_adapter_sync()
        finally:
            logger.setLevel(level)
            if before is None:
                del os.environ["WGPU_BACKEND_TYPE"]
            else:
                os.environ["WGPU_BACKEND_TYPE"] = before

    def request_device(self, adapter: Any, features: list[str], limits: Mapping[str, int], trusted: bool) -> Any:
        """A raw device; raises the engine's own exception when the adapter refuses."""
        options: dict[str, Any] = {
            "label": "executorch_webgpu",
            "required_features": features,
            "required_limits": dict(limits),
        }
        if self.name == "wgpu":
            return adapter.request_device_sync(**options)
        cache = dawn_cache(importlib.import_module("wgpudawn._lib").dawn_version)
        if adapter.info["backend_type"] == "Null":  # nothing there takes long to compile
            cache = None
        with nullcontext() if cache is None else cache.chained(self.native):
            toggles = _DAWN_TRUSTED if trusted else ()
            return self.extras.request_device_sync(adapter, enable_toggles=toggles, **options)

    def create_shader_module(self, device: Any, label: str, code: str, checks: str) -> Any:
        """A raw shader module with the ``checks`` of its kernel (wgsl.py).

        wgpu-native counts the turns of every loop, lest one never ends, and bounds indices. Of storage buffers the
        device checks bounds in any case, where it can. Dawn has no such choice for one module.
        """
        if self.name != "wgpu" or checks == "all":
            return device.create_shader_module(label=label, code=code)
        native = self.native
        wgsl = native.new_struct_p("WGPUShaderSourceWGSL *", code=native.to_c_string_view(code))
        wgsl[0].chain.next = native.ffi.NULL
        wgsl[0].chain.sType = native.lib.WGPUSType_ShaderSourceWGSL
        chain = native.ffi.cast("WGPUChainedStruct *", wgsl)
        view = native.to_c_string_view(label)
        descriptor = native.new_struct_p("WGPUShaderModuleDescriptor *", nextInChain=chain, label=view)
        flags = {
            "bounds": native.lib.WGPUShaderRuntimeChecks_BoundsChecks,
            "none": native.lib.WGPUShaderRuntimeChecks_None,
        }
        module = native.libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, flags[checks])
        return native.GPUShaderModule(label, module, device)

    def begin_compute_pipeline(self, device: Any, descriptor: Mapping[str, Any]) -> Callable[[], Any]:
        """Have another thread compile a pipeline; the returned function waits for it, and raises what went wrong."""
        if self.name == "dawn":  # it has threads of its own, and reports an error of one call in another's thread
            return device.create_compute_pipeline_async(**descriptor).sync_wait
        return _compilers().submit(device.create_compute_pipeline, **descriptor).result

    def wait(self, device: Any) -> None:
        """Blocks until the work submitted to a raw device is done, and lets the engine free its staging."""
        if self.name == "wgpu":
            # on_submitted_work_done_async() of wgpu-py 0.32 passes a callback of the wrong C type.
            device._poll_wait()
        else:
            device.queue.on_submitted_work_done_async().sync_wait()

    def timestamp_period(self, queue: Any) -> float:
        """Nanoseconds of a tick of resolved timestamps: Dawn's are nanoseconds, wgpu-native's are the GPU's own."""
        return float(self.native.libf.wgpuQueueGetTimestampPeriod(queue._internal)) if self.name == "wgpu" else 1.0

    def submit(self, queue: Any, command_buffers: Sequence[Any]) -> int:
        """Hand them to a raw queue.  Returns the number by which wgpu-native knows the submission; 0 for Dawn."""
        native = self.native
        handles = native.new_array("WGPUCommandBuffer[]", [buffer._internal for buffer in command_buffers])
        if self.name == "wgpu":
            return int(native.libf.wgpuQueueSubmitForIndex(queue._internal, len(command_buffers), handles))
        native.libf.wgpuQueueSubmit(queue._internal, len(command_buffers), handles)
        return 0

    def read(self, device: Any, buffer: Any, nbytes: int, submission: int) -> bytes:
        """The first bytes of a raw staging buffer that a submission filled; waits for that one and no later one.

        By the C functions: wgpu-py waits for a mapping in a thread, and there for all submitted work; its sibling for
        Dawn takes 0.1 ms for the objects around one.
        """
        native = self.native
        result: list[int] = []
        handle = native.ffi.new_handle(result)
        mode = native.lib.WGPUCallbackMode_AllowProcessEvents
        info = native.new_struct("WGPUBufferMapCallbackInfo", mode=mode, callback=self._on_mapped, userdata1=handle)
        future = native.libf.wgpuBufferMapAsync(buffer._internal, native.lib.WGPUMapMode_Read, 0, nbytes, info)
        if self.name == "wgpu":
            index = native.ffi.new("WGPUSubmissionIndex *", submission)
            while not result:  # once, unless that thread takes our callback
                native.libf.wgpuDevicePoll(device._internal, True, index)
        else:
            awaited = native.ffi.new("WGPUFutureWaitInfo *")
            awaited.future.id = future.id
            instance = native.get_wgpu_instance()
            while not result:
                status = native.libf.wgpuInstanceWaitAny(instance, 1, awaited, _WAIT_NANOSECONDS)
                if status not in (native.lib.WGPUWaitStatus_Success, native.lib.WGPUWaitStatus_TimedOut):
                    raise RuntimeError(f"waiting for a staging buffer failed (status {status})")
        if result != [native.lib.WGPUMapAsyncStatus_Success]:
            raise RuntimeError(f"a staging buffer could not be mapped (status {result})")
        try:
            address = native.libf.wgpuBufferGetConstMappedRange(buffer._internal, 0, nbytes)
            return bytes(native.ffi.buffer(address, nbytes))
        finally:
            native.libf.wgpuBufferUnmap(buffer._internal)

    def subgroup_sizes(self, adapter: Any) -> tuple[int, int]:
        """(minimum, maximum) subgroup size; the WebGPU range (4, 128) when the adapter does not say."""
        # The public adapter info holds constants here, so ask the C API.
        native = self.native
        try:
            info = native.new_struct_p("WGPUAdapterInfo *")
            native.lib.wgpuAdapterGetInfo(adapter._internal, info)
            smallest, largest, vendor = int(info.subgroupMinSize), int(info.subgroupMaxSize), int(info.vendorID)
            native.lib.wgpuAdapterInfoFreeMembers(info[0])
        except AttributeError:
            return _ANY_SUBGROUP
        return subgroup_range(smallest, largest, vendor)

    def subgroup_matrix_shapes(self, adapter: Any) -> tuple[tuple[str, str, int, int, int], ...]:
        """(component type, result type, m, n, k) of every subgroup matrix that the adapter multiplies."""
        if self.name != "dawn":
            return ()
        configs = self.extras.get_adapter_properties(adapter).get("subgroup_matrix_configs", ())
        return tuple(
            (str(c["component_type"]), str(c["result_component_type"]), int(c["m"]), int(c["n"]), int(c["k"]))
            for c in configs
        )

    def errors(
        self, doing: str, error: type[Error] = DeviceError, lost: Callable[[str], None] = lambda why: None
    ) -> EngineErrors:
        """Turn the engine's exceptions into ``error`` (or DeviceLostError), with what we were doing.

        ``lost`` is told why, when the device is lost.
        """
        return EngineErrors((self.api.GPUError, RuntimeError, ValueError), doing, error, lost)


class EngineErrors:
    """A context; see ``Engine.errors``. Each step enters several, so it is no generator, which would take longer."""

    __slots__ = ("_caught", "_doing", "_error", "_lost")

    def __init__(
        self, caught: tuple[type[Exception], ...], doing: str, error: type[Error], lost: Callable[[str], None]
    ) -> None:
        self._caught = caught
        self._doing = doing
        self._error = error
        self._lost = lost

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if exc is None:
            return
        if isinstance(exc, DeviceLostError):
            self._lost(str(exc))
        elif isinstance(exc, self._caught) and not isinstance(exc, Error):
            # The engine's frames hold views of the caller's memory through cffi, in a cycle with the exception;
            # left to the garbage collector, their release can crash the process.
            traceback.clear_frames(exc.__traceback__)
            found = translate(exc, self._doing, self._error)
            if isinstance(found, DeviceLostError):
                self._lost(str(found))
            raise found from exc


def subgroup_range(smallest: int, largest: int, vendor: int) -> tuple[int, int]:
    """Subgroup sizes of a vendor's adapter by what the engine says: maybe nothing, or all that WebGPU allows."""
    if not 0 < smallest <= largest or (smallest, largest) == _ANY_SUBGROUP:
        return _SUBGROUP_OF_VENDOR.get(vendor, _ANY_SUBGROUP)
    return smallest, largest


def translate(exc: BaseException, doing: str, error: type[Error] = DeviceError) -> Error:
    """Our exception for an engine's."""
    text = " ".join(line.strip() for line in str(exc).splitlines() if line.strip())
    lowered = text.lower()
    if "is lost" in lowered or "device lost" in lowered or "device was lost" in lowered:
        return DeviceLostError(f"the GPU device was lost while {doing}; load the program again ({text})")
    return error(f"{doing} failed: {text}")


@cache
def _compilers() -> ThreadPoolExecutor:
    """Threads in which wgpu-native compiles: its calls let go of Python's lock, and do not wait for each other."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compile")


def load_engine(name: str) -> Engine | None:
    """The engine ``"wgpu"`` or ``"dawn"``, or None when its package is not installed."""
    with SETTING_UP:
        return _load_engine(name)


@cache
def _load_engine(name: str) -> Engine | None:
    try:
        api = importlib.import_module(_MODULE[name])
        extras = importlib.import_module(_BACKEND[name] + ".extras")
    except ImportError:
        return None
    log = _ErrorLog()
    logging.getLogger(_MODULE[name]).addHandler(log)
    engine = Engine(name, api, extras, log)
    if name == "wgpu":  # Dawn's are compiled
        learn_types(engine.native.ffi)
    _ = engine._on_mapped
    with _no_device_select():
        _set_up_instance(engine)
    return engine


def _set_up_instance(engine: Engine) -> None:
    """Set instance options; an instance that the application already made is used as it is."""
    try:
        if engine.name == "wgpu":
            # Without this, OpenGL is initialized too: slow, noisy, and nothing that we would choose.
            engine.extras.set_instance_extras(backends=["Primary"])
        else:
            engine.extras.set_instance_extras(enable_toggles=_DAWN_ENABLE, disable_toggles=_DAWN_DISABLE)
    except RuntimeError:
        logging.getLogger(__name__).info("the %s instance already exists", engine.name)


@contextmanager
def _no_device_select() -> Iterator[None]:
    """Switch Mesa's device-select layer off while adapters are listed.

    We choose the adapter ourselves, and the layer asks for a Wayland display, which prints errors on a
    machine without one.
    """
    name = "NODEVICE_SELECT"
    if not sys.platform.startswith("linux") or name in os.environ or "WAYLAND_DISPLAY" in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
