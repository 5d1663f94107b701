"""Programs on an adapter: opened, described, and their methods loaded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, NoAdapterError
from ..format.mapped_file import MappedFile
from ..format.ptd import DataFiles, data_files_beside
from ..format.pte import ProgramFile, open_program, read_program
from ..gpu.device import Device, open_device
from ..gpu.locked import locked
from ..graph.batching import BatchSizes
from ..graph.constants import ConstantPool
from ..graph.fusion import chosen_fusions
from ..graph.traffic import StepBytes
from ..portable.shared_buffers import SharedBuffers, initial_buffers, with_names
from .batch import BatchMethod
from .check import CheckReport, check_method
from .fingerprint import fingerprint
from .graphs import MethodGraphs, method_graphs
from .metadata import (
    MethodMetadata,
    ProgramReport,
    files_inside,
    method_metadata,
    method_report,
    method_step_bytes,
    refuse_unsupported,
)
from .method import Method
from .method_file import MethodFile
from .options import LoadOptions

REFERENCE = "reference"  # the adapter that is none


class Runtime:
    """Programs on one adapter. The device opens when the first method that needs it is loaded.

    Threads may share everything here; docs/architecture.md says what waits for what.
    """

    _runtimes: ClassVar[dict[tuple[str, int | str | None, bool], Runtime]] = {}
    _runtimes_lock: ClassVar[RLock] = RLock()

    def __init__(self, engine: str | None = None, adapter: int | str | None = None, *, check: bool = False) -> None:
        self._lock = RLock()
        self._choice = (engine, adapter)
        self._device: Device | None = None
        self._check = check

    @classmethod
    def get(cls, engine: str | None = None, adapter: int | str | None = None, *, check: bool = False) -> Runtime:
        """The runtime of an engine and adapter; the same one for the same choice.

        ``engine``: "auto", "wgpu" or "dawn"; None reads ET_WEBGPU_ENGINE. ``adapter``: index, or part of the name;
        None reads ET_WEBGPU_ADAPTER, else takes the most capable one. "reference" is no adapter: the NumPy references
        of the operators run programs, slowly, in float64, on a machine that needs no engine.
        ``check``: whatever is loaded runs as ``LoadOptions.check`` says.
        """
        engine = engine or os.environ.get("ET_WEBGPU_ENGINE") or "auto"
        if adapter is None:
            adapter = os.environ.get("ET_WEBGPU_ADAPTER") or None
        key = (engine, adapter, check)
        with cls._runtimes_lock:
            if key not in cls._runtimes:
                cls._runtimes[key] = cls(engine, adapter, check=check)
            return cls._runtimes[key]

    @property
    @locked
    def device(self) -> Device:
        """The open device. Raises NoAdapterError when there is none."""
        if self._on_host:
            raise NoAdapterError("the reference has no device: name another adapter, or none")
        if self._device is not None and not self._device.usable:
            self._device.close()  # lost
            self._device = None
        if self._device is None:
            self._device = open_device(*self._choice)
        return self._device

    @property
    def _on_host(self) -> bool:
        return self._choice[1] == REFERENCE

    def load_program(
        self,
        data: str | Path | bytes | bytearray | memoryview | BinaryIO,
        *,
        data_files: Iterable[str | Path] | None = None,
    ) -> Program:
        """Read a ``.pte`` program from a path (mapped, not copied), from bytes, or from an open binary file.

        ``data_files``: the ``.ptd`` files with what the program keeps outside of itself. Without them, those in the
        folder of the program that no other program claims by its name are looked into, if it needs any.
        Raises InvalidProgramError when it is not a readable program, or one of the data files cannot be read.
        """
        if isinstance(data, str | Path):
            mapped, file = open_program(data)
        else:
            content = (
                data if isinstance(data, bytes | bytearray | memoryview) else getattr(data, "read", lambda: data)()
            )
            if not isinstance(content, bytes | bytearray | memoryview):
                raise InvalidInputError(
                    f"a program is loaded from a path, bytes or a binary file, not from {type(content).__name__}"
                )
            mapped, file = None, read_program(bytes(content))
        if data_files is not None:
            named = [Path(path) for path in ([data_files] if isinstance(data_files, str | Path) else data_files)]
            external = DataFiles(lambda: named)
            external.open()
        else:
            external = DataFiles(lambda: data_files_beside(Path(data)) if isinstance(data, str | Path) else [])
        return Program(self, replace(file, external=external), mapped, external)


class Program(Closing):
    """A loaded program; a context manager that closes its methods and the file."""

    def __init__(self, runtime: Runtime, file: ProgramFile, mapped: MappedFile | None, external: DataFiles) -> None:
        self._lock = RLock()  # taken before a device's, if both are
        self._runtime = runtime
        self._file: ProgramFile | None = file
        self._method_files = tuple(MethodFile(file, plan) for plan in with_names(file.methods))
        self._mapped = mapped
        self._external = external
        self._constants: ConstantPool | None = None
        self._fingerprint: str | None = None
        # What methods share: bytes by name at first, and the buffers of the states that are the methods' own.
        self._initial_buffers: Mapping[str, np.ndarray] | None = None
        self._buffers = SharedBuffers({})
        self._methods: weakref.WeakSet[Closing] = weakref.WeakSet()

    @property
    def method_names(self) -> set[str]:
        """Names of all methods."""
        return {plan.name for plan in self._open_file.methods}

    @locked
    def load_method(self, /, name: str, options: LoadOptions | None = None, **changes: Any) -> Method:
        """Plan and upload a method. Each call gives a method with plans and state of its own; see ``Method.new_state``.
        Buffers that several methods of the program share are one for all states that are methods' own.

        ``options``, and ``changes`` of its fields by name: see ``LoadOptions``.
        Raises InvalidInputError for a name that is none of the choices, UnsupportedProgramError that lists every
        operator that cannot run, or says why the KV caches must stay as they are, LimitError, NoAdapterError.
        """
        options = LoadOptions.of(options, {"check": True, **changes} if self._runtime._check else changes)
        file, described = self._open_file, self._method(name)
        refuse_unsupported(described)
        if self._initial_buffers is None:
            self._initial_buffers = initial_buffers(file, [method.plan for method in self._method_files])
            self._buffers = SharedBuffers.beginning(self._initial_buffers)
        constants = None if self._runtime._on_host else self._constant_pool
        method = Method(described, constants, options, self._identify, self._initial_buffers, self._buffers)
        self._methods.add(method)
        return method

    @locked
    def load_batch(
        self,
        /,
        name: str,
        sizes: BatchSizes,
        options: LoadOptions | None = None,
        *,
        in_flight: int | None = None,
        pad: bool | None = None,
        **changes: Any,
    ) -> BatchMethod:
        """Plan and upload a method ``forward(tokens, input_pos) -> logits`` for rows of many sequences at once.

        ``sizes``: the most that a step takes, and the pool of pages. ``in_flight``, ``pad``: see ``BatchMethod``.
        ``options``, ``changes``: as ``load_method`` takes them; ``kv_cache_dtype`` is that of the pool.
        Raises as it does, and UnsupportedProgramError with the operator whose rows are not independent of each other.
        """
        options = LoadOptions.of(options, {"check": True, **changes} if self._runtime._check else changes)
        described = self._method(name)
        refuse_unsupported(described)
        method = BatchMethod(described, self._constant_pool(), options, sizes, self._identify, in_flight, pad)
        self._methods.add(method)
        return method

    @property
    def adapter_name(self) -> str:
        """The adapter that methods run on. Raises NoAdapterError."""
        device = self._runtime.device
        return f"{device.info.name} ({device.engine}, {device.info.backend})"

    @property
    def named_data(self) -> Mapping[str, memoryview]:
        """Data that the file carries by name: constants of its graphs, and files such as ``tokenizer.json``.

        The views end with ``close()``.
        """
        return self._open_file.named_data

    @locked
    def metadata(self, name: str) -> MethodMetadata:
        """Inputs and outputs of a method, found without loading it; needs no GPU."""
        return method_metadata(self._method(name))

    @locked
    def step_bytes(self, /, name: str, options: LoadOptions | None = None, **changes: Any) -> StepBytes:
        """Bytes that a method must read from memory for one token, the limit of its speed; needs no GPU.

        ``options``, ``changes``: as ``load_method`` takes them.
        """
        options = LoadOptions.of(options, changes)
        return method_step_bytes(self._method(name), options.kv_cache_dtype)

    @locked
    def inspect(self, fuse: bool | Iterable[str] = True) -> ProgramReport:
        """Methods, operators, constants, and what ``load_method`` fuses and plans in memory; needs no GPU."""
        file, fusions = self._open_file, chosen_fusions(fuse)
        nbytes = len(self._mapped.data) if self._mapped else 0
        reports = tuple(method_report(method, fusions) for method in self._method_files)
        return ProgramReport(reports, nbytes, files_inside(file, self._method_files))

    @locked
    def graphs(self, /, name: str, options: LoadOptions | None = None, *, on_device: bool = False) -> MethodGraphs:
        """A method's graphs after fusion, planned for the largest sizes, and its stages on the host.

        ``on_device``: as the runtime's adapter runs them; by default for the least that WebGPU promises, which needs no
        GPU. ``options``: as ``load_method`` takes them. Raises InvalidInputError for an unknown name, NoAdapterError.
        """
        device = self._runtime.device if on_device else None
        return method_graphs(self._method(name), LoadOptions.of(options, {}), device)

    def check(self, name: str, steps: Iterable[Sequence[Any]]) -> CheckReport:
        """Run a method on the inputs of several calls in turn, and hold its graphs against their references.

        The report names operators whose results need more than the device's 32 bits, and says how far each output is
        from float64. Raises like ``load_method`` and ``Method.execute``.
        """
        with self.load_method(name) as method:
            return check_method(self._method(name), method, steps)

    @locked
    def close(self) -> None:
        """Close all methods of this program, and the file. Closing twice is allowed."""
        for method in list(self._methods):
            method.close()
        self._file = self._constants = None
        self._method_files = ()
        if self._mapped is not None:
            self._mapped.close()
        self._external.close()

    @property
    def _open_file(self) -> ProgramFile:
        file = self._file
        if file is None:
            raise ClosedError("this program is closed; load it again")
        return file

    def _method(self, name: str) -> MethodFile:
        names = self.method_names
        if name not in names:
            raise InvalidInputError(f"the program has no method {name!r}; it has {', '.join(sorted(names))}")
        return next(method for method in self._method_files if method.plan.name == name)

    def _constant_pool(self) -> ConstantPool:
        device = self._runtime.device
        if self._constants is None or self._constants.device is not device:
            self._constants = ConstantPool(device, self._forget)
        return self._constants

    @locked
    def _identify(self) -> str:
        """The program's fingerprint; reads the whole file once."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._open_file, self._method_files, self._forget)
        return self._fingerprint

    def _forget(self, view: memoryview) -> None:
        """The bytes of a part of the file need not stay in memory."""
        for mapped in (self._mapped, *self._external.files):
            if mapped is not None and mapped.holds(view):
                mapped.release(view)


def inspect_program(path: str | Path, fuse: bool | Iterable[str] = True) -> ProgramReport:
    """What is in a ``.pte`` file: methods, operators (unsupported ones marked), constants, fusions, memory.

    Needs no GPU. ``fuse``: see ``Program.load_method``.
    """
    with Runtime().load_program(path) as program:
        return program.inspect(fuse)
