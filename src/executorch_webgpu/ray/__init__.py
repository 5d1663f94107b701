"""The server on many GPUs and machines, and whole data sets, by Ray. Needs the extra ``[ray]``."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("ray") is None:
    raise ImportError("Ray is not installed: pip install 'executorch-webgpu[ray]'")

from .adapters import assigned_adapter
from .pipeline import Pipeline
from .predictor import predictor

__all__ = ["Pipeline", "assigned_adapter", "predictor"]
