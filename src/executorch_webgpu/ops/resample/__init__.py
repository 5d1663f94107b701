"""Resampling: in other sizes, at the places of a grid, and between channels and neighbours."""

from . import grid_sampler, upsample

__all__ = ["grid_sampler", "upsample"]
