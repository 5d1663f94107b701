"""Affine quantization: numbers to codes of 8 to 32 bits and back, and the choice of scales and zero points."""

from . import affine, affine_blocks, embedding, parameters

__all__ = ["affine", "affine_blocks", "embedding", "parameters"]
