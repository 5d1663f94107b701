"""The 8-bit family of ExecuTorch's Vulkan backend: operators on int8 tensors, exact up to the codes."""

from . import elements

__all__ = ["elements"]
