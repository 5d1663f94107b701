"""Rows of x times the transposes of matrices: the kernels behind all linear layers, and what is fused to them."""

from .call import Norm, Product
from .routes import multiply

__all__ = ["Norm", "Product", "multiply"]
