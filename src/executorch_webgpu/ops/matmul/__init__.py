"""Rows of x times the transposes of matrices: the kernels behind all linear layers, and what is fused to them."""

from .call import Norm, Product
from .gemm_matrix import most_past
from .routes import multiply, split_form

__all__ = ["Norm", "Product", "most_past", "multiply", "split_form"]
