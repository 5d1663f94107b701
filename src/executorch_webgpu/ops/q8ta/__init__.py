"""The 8-bit family of ExecuTorch's Vulkan backend: operators on int8 tensors, exact up to the codes."""

from . import convolution, elements, linear

__all__ = ["convolution", "elements", "linear"]
