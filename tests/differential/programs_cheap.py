"""Makes the stock exporter cheap enough to run thousands of times; what it writes stays the same.

Lowering a small module takes 5 seconds, nearly all of it spent on making the same things again: the graphs of Vulkan
patterns, the list of composite operators, and their kernels. Here they are made once. And each of a hundred passes
writes its graph as Python code, which nothing runs. Here that code is written when something asks for it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch._export.utils
import torch.export.decomp_utils
import torch.export.exported_program as exported_program
from executorch.backends.vulkan.patterns import fusable_patterns
from torch._subclasses.fake_impls import op_implementations_dict
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.graph_module import GraphModule, _WrappedCall

_write_code = GraphModule.recompile
_original = exported_program._override_composite_implicit_decomp
_active: list[Any] = []
_kernels: dict[Any, dict[Any, tuple[dict[Any, Any], Any]]] = {}


@functools.cache
def make_export_cheap() -> None:
    """Keep what the exporter makes again each time. Lasts as long as the process."""
    logging.getLogger().setLevel(logging.WARNING)
    for entry in fusable_patterns.values():
        if entry.get_graphs_fn is not None:
            entry.get_graphs_fn = functools.cache(entry.get_graphs_fn)
    composite = functools.cache(torch._export.utils._collect_all_valid_cia_ops)
    exported_program._collect_all_valid_cia_ops = composite
    torch.export.decomp_utils._collect_all_valid_cia_ops = composite
    exported_program._override_composite_implicit_decomp = _override
    GraphModule.recompile = _recompile
    GraphModule.code = property(_code)
    GraphModule.__str__ = GraphModule.__repr__  # the exporter makes texts for a log that is off


def _recompile(module: GraphModule) -> None:
    """Stands for ``GraphModule.recompile``: the code is written when ``forward`` or ``code`` is read."""
    made = type(module)  # each GraphModule has a class of its own
    if "_wrapped_call" not in vars(made):
        made._wrapped_call = _WrappedCall(made, vars(made).get("__call__"))
        made.__call__ = _call
    if isinstance(module.graph._codegen, _PyTreeCodeGen):
        module._in_spec = module.graph._codegen.pytree_info.in_spec
        module._out_spec = module.graph._codegen.pytree_info.out_spec
    vars(module).pop("_code", None)
    made.forward = _Unwritten()
    module._recompile_submodules()


def _call(module: GraphModule, *args: Any, **kwargs: Any) -> Any:
    return module._wrapped_call(module, *args, **kwargs)


class _Unwritten:
    """What stands for ``forward`` until something asks for it, to call it or to see its arguments."""

    def __get__(self, module: GraphModule | None, _: type) -> Any:
        if module is None:
            return self
        _write_code(module)  # puts the real one in this one's place
        return module.forward


def _code(module: GraphModule) -> str:
    if "_code" not in vars(module):
        _write_code(module)
    return module._code


@contextmanager
def _override(decompositions: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """What torch's own context manager does, with the kernels that it registered when it met this table before."""
    # torch makes the functions that decompose an operator by its own kernel anew each time: they are told by name.
    named = ((op, getattr(getattr(c, "func", c), "__qualname__", c)) for op, c in decompositions.items())
    key = (frozenset(named), *_active[-1:])
    if key not in _kernels:
        with _original(decompositions):
            _kernels[key] = {op: (dict(op.py_kernels), op_implementations_dict.get(op)) for op in decompositions}
            _active.append(key)
            try:
                yield
            finally:
                _active.pop()
        return
    made = _kernels[key]
    before = {op: (op.py_kernels, op_implementations_dict.get(op)) for op in made}
    _active.append(key)
    try:
        _set(made)
        yield
    finally:
        _active.pop()
        _set(before)


def _set(kernels: Mapping[Any, tuple[dict[Any, Any], Any]]) -> None:
    for op, (table, fake) in kernels.items():
        op.py_kernels = table
        op._dispatch_cache.clear()
        if fake is None:
            op_implementations_dict.pop(op, None)
        else:
            op_implementations_dict[op] = fake
