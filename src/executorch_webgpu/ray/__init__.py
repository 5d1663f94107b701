"""The server on many GPUs and machines, and whole data sets, by Ray. Needs the extra ``[ray]``."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("ray") is None:
    raise ImportError("Ray is not installed: pip install 'executorch-webgpu[ray]'")

if TYPE_CHECKING:
    from .adapters import assigned_adapter
    from .application import ServeArguments, build_app
    from .data import predictor
    from .pipeline import Pipeline

_MODULES = {
    "Pipeline": "pipeline",
    "ServeArguments": "application",
    "assigned_adapter": "adapters",
    "build_app": "application",
    "predictor": "data",
}
__all__ = ["Pipeline", "ServeArguments", "assigned_adapter", "build_app", "predictor"]


def __getattr__(name: str) -> Any:
    """Names are imported when they are first asked for: Ray Data and Ray Serve take a second each."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
