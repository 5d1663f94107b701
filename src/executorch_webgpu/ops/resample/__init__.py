"""Resampling: in other sizes, and at the places of a grid."""

from . import grid_sampler, upsample

__all__ = ["grid_sampler", "upsample"]
