"""Resampling: in other sizes, at the places of a grid, and between channels and neighbours."""

from . import grid_sampler, shuffle, upsample

__all__ = ["grid_sampler", "shuffle", "upsample"]
