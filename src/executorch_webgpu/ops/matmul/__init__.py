"""Rows of x times the transposes of matrices: the kernels behind all linear layers, and what is fused to them."""

from .call import Norm, Product
from .routes import multiply, split_form

__all__ = ["Norm", "Product", "multiply", "split_form"]
