"""What the routes on tensor cores share."""

from __future__ import annotations

import math

from ..plan import Planner
from .call import AttentionCall

SHAPE = ("f16", "f32", 16, 16, 16)  # component type, result type, m, n, k
SUBGROUP = 32
LOG2_E = math.log2(math.e)


def has_matrices(g: Planner) -> bool:
    """Whether a device has subgroup matrices of ``SHAPE`` and subgroups of a size that is known at load."""
    features = g.features
    fixed = features.subgroup_min_size == features.subgroup_max_size == SUBGROUP
    return (
        features.subgroup_matrix
        and SHAPE in features.subgroup_matrix_shapes
        and fixed
        and features.f16
        and features.subgroups
    )


def load_width(call: AttentionCall) -> int:
    """Elements of a head that one load of the cache brings: 16 bytes, or fewer where no head is a multiple of it."""
    widest = 16 // call.k_cache.element.itemsize
    return next(width for width in (16, 8, 4) if width <= widest and call.head_dim % width == 0)
