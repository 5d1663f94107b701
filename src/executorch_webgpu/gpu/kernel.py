"""From a kernel's WGSL template to a pipeline, through one cache.

A kernel is a file below ``ops/`` with an entry point: ``family/name.wgsl``, or ``family/name/kernel.wgsl`` where it has
a folder of its own, is ``"family/name"``.  Jinja2 fills in what WGSL cannot express (element types, unrolling), from
the inputs that the file's head names; the engine's prologue (``enable`` lines) is put in front here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ..errors import Error, KernelError, LimitError
from .head import Head, read_head
from .locked import locked
from .rendered import RenderedKernels
from .wgsl import Binding, KernelSource, Number, Override, ParamField, parse, strip_comments

if TYPE_CHECKING:
    from .buffers import Buffer
    from .capabilities import Features, Limits
    from .device import Device

__all__ = [
    "DEFAULT_ROOTS",
    "Binding",
    "KernelSource",
    "KernelStats",
    "Kernels",
    "Override",
    "ParamField",
    "Pipeline",
    "Range",
    "check_limits",
    "head_of",
    "kernel_names",
    "render",
]

# Where the kernels of the package live; a path, because this layer imports no operators.
DEFAULT_ROOTS: tuple[Path, ...] = (Path(__file__).resolve().parent.parent / "ops",)

Range = tuple["Buffer", int, int]  # (buffer, byte offset, bytes)
# What makes a pipeline: kernel, template values, overrides.
Variant = tuple[str, Mapping[str, object], Mapping[str, Number]]

_LAYOUT_TYPE = {"read": "read-only-storage", "read_write": "storage", "uniform": "uniform"}
_COMPUTE_STAGE = 4  # GPUShaderStage.COMPUTE, the same number in every engine


@dataclass(frozen=True)
class Pipeline:
    """A compiled kernel: its declaration, the engine's pipeline and its bind group layout."""

    source: KernelSource
    raw: Any
    layout: Any


@dataclass(frozen=True)
class KernelStats:
    """How many objects a cache has made."""

    modules: int
    layouts: int
    pipelines: int


@cache
def _environment(roots: tuple[Path, ...]) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(list(roots)),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _files(name: str) -> list[str]:
    """Where a kernel of that name may be."""
    return [f"{name}/kernel.wgsl", f"{name}.wgsl"]


def kernel_names(roots: Sequence[Path] = DEFAULT_ROOTS) -> list[str]:
    """All kernels, sorted; a file without an entry point is a library."""
    found = []
    for root in roots:
        for path in root.rglob("*.wgsl"):
            if "@compute" in path.read_text():
                at = path.relative_to(root).with_suffix("")
                found.append((at.parent if at.name == "kernel" else at).as_posix())
    return sorted(found)


def head_of(name: str, roots: Sequence[Path] = DEFAULT_ROOTS) -> Head:
    """The head of a kernel's file.  Raises KernelError when there is no such file, or its head cannot be read."""
    return read_head(name, _file(name, roots).read_text())


def _file(name: str, roots: Sequence[Path]) -> Path:
    for root in roots:
        for file in _files(name):
            if (root / file).is_file():
                return root / file
    raise KernelError(f"there is no kernel {name!r}; see `et-webgpu kernel` for those that there are")


def render(
    name: str,
    template: Mapping[str, object],
    dialect: str,
    features: Features,
    roots: Sequence[Path] = DEFAULT_ROOTS,
    rendered: RenderedKernels | None = None,
) -> KernelSource:
    """Render kernel ``name`` for an engine (``dialect`` is ``"wgpu"`` or ``"dawn"``) and parse it.

    The template sees ``template``'s values and ``dialect``.  Raises KernelError when the file is missing,
    a template input is missing or unknown, the text declares what a kernel may not, or it needs a feature that is not
    there. ``rendered`` may know the text already.
    """
    head_of(name, roots).check(name, template)

    def text() -> str:
        return _environment(tuple(roots)).select_template(_files(name)).render({**template, "dialect": dialect})

    try:
        body = text() if rendered is None else rendered.text(name, template, dialect, text)
    except jinja2.TemplateNotFound as exc:
        raise KernelError(f"kernel {name!r}: there is no template {exc.name!r}") from exc
    except jinja2.TemplateError as exc:
        raise KernelError(f"kernel {name!r} does not render: {exc}") from exc
    return parse(name, _prologue(name, strip_comments(body), dialect, features) + body)


def _prologue(name: str, text: str, dialect: str, features: Features) -> str:
    """The directives that the text needs; the engines disagree about these, so kernels never write them."""
    if re.search(r"^\s*enable\b", text, re.MULTILINE):
        raise KernelError(f"kernel {name!r} must not write `enable`: the renderer puts it in front")
    f16 = bool(re.search(r"\bf16\b|\bvec[234]h\b|\bmat[234]x[234]h\b|\b\d[\d.]*h\b", text))
    subgroups = bool(re.search(r"\b(subgroup|quad)[A-Z]\w*\s*\(|\bsubgroup_(size|invocation_id|id)\b", text))
    matrix = "subgroup_matrix" in text or "subgroupMatrix" in text
    needs = {
        "f16": (f16, features.f16),
        "subgroups": (subgroups, features.subgroups),
        "subgroup matrices": (matrix, features.subgroup_matrix),
    }
    for feature, (needed, present) in needs.items():
        if needed and not present:
            raise KernelError(f"kernel {name!r} needs {feature}, which the device does not have")
    lines = ["enable f16;"] if f16 else []
    if dialect == "dawn":
        if subgroups or matrix:
            lines.append("enable subgroups;")
        if matrix:
            lines.append("enable chromium_experimental_subgroup_matrix;")
            lines.append("diagnostic(off, chromium.subgroup_matrix_uniformity);")
    return "".join(line + "\n" for line in lines)


def check_limits(source: KernelSource, overrides: Mapping[str, Number], limits: Limits) -> None:
    """Raises LimitError when a kernel with these overrides is larger than a device allows."""
    size = source.workgroup(overrides)
    invocations = size[0] * size[1] * size[2]
    if any(s > most for s, most in zip(size, limits.max_workgroup_size, strict=True)):
        raise LimitError(
            f"kernel {source.name!r}: workgroup size {size} exceeds the device's {limits.max_workgroup_size}"
        )
    if invocations > limits.max_invocations:
        raise LimitError(
            f"kernel {source.name!r}: {invocations} invocations per workgroup exceed the device's "
            f"{limits.max_invocations}"
        )
    nbytes = source.workgroup_bytes(overrides)
    if nbytes is not None and nbytes > limits.max_workgroup_bytes:
        raise LimitError(
            f"kernel {source.name!r}: {nbytes} bytes of workgroup memory exceed the device's "
            f"{limits.max_workgroup_bytes}"
        )
    storage = sum(b.access != "uniform" for b in source.bindings)
    if storage > limits.max_storage_buffers:
        raise LimitError(
            f"kernel {source.name!r}: {storage} storage buffers exceed the device's {limits.max_storage_buffers}"
        )


class Kernels:
    """The cache of sources, shader modules, layouts and pipelines of one device."""

    def __init__(self, device: Device, roots: Sequence[Path] = DEFAULT_ROOTS) -> None:
        self._device = device
        self._lock = device.lock
        self._roots = tuple(roots)
        self._rendered = RenderedKernels(self._roots)
        self._sources: dict[object, KernelSource] = {}
        self._modules: dict[str, Any] = {}  # by rendered code
        self._layouts: dict[tuple[tuple[int, str], ...], tuple[Any, Any]] = {}
        self._pipelines: dict[object, Pipeline] = {}

    def stats(self) -> KernelStats:
        """How many modules, layouts and pipelines were made; calls for known ones make none."""
        pipelines = {id(p) for p in self._pipelines.values()}
        return KernelStats(len(self._modules), len(self._layouts), len(pipelines))

    @locked
    def source(self, name: str, template: Mapping[str, object] | None = None) -> KernelSource:
        """The rendered and parsed kernel."""
        template = template or {}
        key = (name, _freeze(template))
        source = self._sources.get(key)
        if source is None:
            device = self._device
            source = render(name, template, device.engine, device.features, self._roots, self._rendered)
            self._sources[key] = source
        return source

    @locked
    def pipeline(
        self,
        name: str,
        template: Mapping[str, object] | None = None,
        overrides: Mapping[str, Number] | None = None,
    ) -> Pipeline:
        """The compiled kernel for these template values and overrides.

        Raises KernelError (does not render or compile, unknown override) or LimitError.
        """
        template, overrides = template or {}, overrides or {}
        key = _key(name, template, overrides)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = self._begin(self.source(name, template), overrides)()
        return pipeline

    @contextmanager
    def compiling(self, variants: Iterable[Variant]) -> Iterator[None]:
        """Compile pipelines while the body runs, several at a time; when it ends, all of them are there.

        Raises as ``pipeline`` does, for the first one that fails, unless the body raises.
        """
        begun: dict[object, Callable[[], Pipeline]] = {}
        failed: list[Error] = []
        try:
            for name, template, overrides in variants:
                key = _key(name, template, overrides)
                if key not in self._pipelines and key not in begun:
                    with self._lock:
                        begun[key] = self._begin(self.source(name, template), overrides)
            yield
        finally:  # whatever happened, nothing may still be compiling for a device that is closed next
            for key, finish in begun.items():
                try:
                    with self._lock:  # another thread's is as good, and may be in use
                        self._pipelines.setdefault(key, finish())
                except Error as error:
                    failed.append(error)
        if failed:
            raise failed[0]

    @locked
    def bind_group(self, pipeline: Pipeline, ranges: Mapping[str, Range]) -> Any:
        """A raw bind group with exactly one buffer range per binding of the kernel.

        Raises KernelError for names or ranges that do not fit, LimitError for a range that is too large.
        """
        source, limits = pipeline.source, self._device.limits
        source.check_names("binding", {b.name for b in source.bindings}, ranges)
        entries = []
        for binding in source.bindings:
            buffer, offset, size = ranges[binding.name]
            if buffer.destroyed:  # a submission that uses it would abort the process in wgpu-native
                raise KernelError(f"kernel {source.name!r}: {buffer.label} was already destroyed")
            _check_range(source.name, binding, buffer, offset, size, limits)
            resource = {"buffer": buffer.raw, "offset": buffer.begin + offset, "size": size}
            entries.append({"binding": binding.index, "resource": resource})
        _check_aliases(source, ranges)
        with self._device.errors(f"binding buffers to kernel {source.name!r}", KernelError):
            return self._device.raw.create_bind_group(label=source.name, layout=pipeline.layout, entries=entries)

    def _begin(self, source: KernelSource, overrides: Mapping[str, Number]) -> Callable[[], Pipeline]:
        """Start to compile a kernel; the function that it returns waits for its pipeline."""
        constants = source.resolve_overrides(overrides)
        check_limits(source, overrides, self._device.limits)
        layout, pipeline_layout = self._layout(source)
        compute = {"module": self.module(source), "entry_point": "main", "constants": constants}
        descriptor = {"label": source.name, "layout": pipeline_layout, "compute": compute}
        with self._device.errors(_compiling(source, self._device), KernelError):
            wait = self._device.begin_compute_pipeline(descriptor)

        def finish() -> Pipeline:
            with self._device.errors(_compiling(source, self._device), KernelError):
                return Pipeline(source, wait(), layout)

        return finish

    @locked
    def module(self, source: KernelSource) -> Any:
        """The raw shader module of a kernel.  Raises KernelError with the engine's message."""
        module = self._modules.get(source.code)
        if module is None:
            with self._device.errors(_compiling(source, self._device), KernelError):
                # What users bring is checked, whatever it says.
                own = any(_file(source.name, self._roots).is_relative_to(root) for root in DEFAULT_ROOTS)
                checks = source.checks if own else "all"
                module = self._device.create_shader_module(source.name, source.code, checks)
            self._modules[source.code] = module
        return module

    def _layout(self, source: KernelSource) -> tuple[Any, Any]:
        """(bind group layout, pipeline layout), shared by all kernels with the same kinds of bindings."""
        key = tuple((b.index, b.access) for b in source.bindings)
        if key not in self._layouts:
            entries = [
                {"binding": i, "visibility": _COMPUTE_STAGE, "buffer": {"type": _LAYOUT_TYPE[access]}}
                for i, access in key
            ]
            raw = self._device.raw
            with self._device.errors(_compiling(source, self._device), KernelError):
                layout = raw.create_bind_group_layout(entries=entries)
                self._layouts[key] = (layout, raw.create_pipeline_layout(bind_group_layouts=[layout]))
        return self._layouts[key]


def _compiling(source: KernelSource, device: Device) -> str:
    return f"compiling kernel {source.name!r} on {device.engine}"


def _key(name: str, template: Mapping[str, object], overrides: Mapping[str, Number]) -> object:
    return name, _freeze(template), _freeze(overrides)


def _freeze(values: Mapping[str, Any]) -> frozenset[tuple[str, type, object]]:
    """A hashable key of a mapping; 1, 1.0 and True are different keys because they render differently."""
    return frozenset((name, type(v), tuple(v) if isinstance(v, list) else v) for name, v in values.items())


def _check_range(kernel: str, binding: Binding, buffer: Buffer, offset: int, size: int, limits: Limits) -> None:
    uniform = binding.access == "uniform"
    most = limits.max_uniform_bytes if uniform else limits.max_binding_bytes
    alignment = limits.uniform_alignment if uniform else limits.storage_alignment
    if size > most:
        raise LimitError(
            f"kernel {kernel!r}: binding {binding.name!r} ({buffer.label}) has {size} bytes and the device "
            f"binds at most {most}"
        )
    if offset % alignment or size <= 0 or size % 4 or offset + size > buffer.size:
        raise KernelError(
            f"kernel {kernel!r}: binding {binding.name!r} cannot be bytes {offset} to {offset + size} of "
            f"{buffer.label} ({buffer.size} bytes, offsets are multiples of {alignment})"
        )


def _check_aliases(source: KernelSource, ranges: Mapping[str, Range]) -> None:
    """WebGPU forbids a buffer that is written to be bound twice in a dispatch, whatever the ranges."""
    for written in source.bindings:
        if written.access != "read_write":
            continue
        for other in source.bindings:
            if other.name != written.name and ranges[other.name][0].raw is ranges[written.name][0].raw:
                raise KernelError(
                    f"kernel {source.name!r}: bindings {written.name!r} and {other.name!r} are the same "
                    f"buffer ({ranges[written.name][0].label}), and {written.name!r} writes it"
                )
