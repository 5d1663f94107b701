"""Steps of a few sizes only: rows that nobody wants are added, so that plans of a size are soon known and found again.

Each of these rows is a text of its own, in the last rows of the block tables: all of them lie in one page of the pool,
which nobody else has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..graph.batching import BatchSizes

_SMALL = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64)  # of more rows, multiples of 64
_ADDED = 63  # rows at most
_LEAST_WIDTH = 8  # of block tables

Ints = NDArray[np.int32]


def padded(count: int, most: int) -> int:
    """The size of a step of ``count`` rows, at least that and at most ``most``."""
    size = next((size for size in _SMALL if size >= count), -(-count // 64) * 64)
    return min(size, most)


@dataclass(frozen=True)
class Padding:
    """What is added to steps of ``sizes``, whose sequences and pages are those of the caller."""

    sizes: BatchSizes

    @property
    def with_room(self) -> BatchSizes:
        """Sizes with the further sequences and their page."""
        return replace(self.sizes, sequences=self.sizes.sequences + _ADDED, pages=self.sizes.pages + 1)

    def __call__(self, tokens: Ints, places: Ints, tables: Ints, wanted: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Tokens [1, T], places [T, 2], block tables [B, W] and wanted rows [R] as the graph takes them.

        Of the tables that is what the rows' own texts fill, in powers of two.
        Whoever gives what cannot be gets it back, for the graph to refuse. Raises InvalidInputError for a page or
        a sequence that is not there.
        """
        rows, count, sizes = tokens.shape[-1], len(wanted), self.sizes
        if tables.size and tables.max() >= sizes.pages:
            raise InvalidInputError(f"the pool has {sizes.pages} pages, 0 to {sizes.pages - 1}, not {tables.max()}")
        if len(tables) > sizes.sequences:
            raise InvalidInputError(f"block tables of {len(tables)} sequences are more than {sizes.sequences}")
        fits = 0 < rows <= sizes.rows and count <= sizes.wanted
        fits = fits and places.shape == (rows, 2) and tables.shape[1:] == (sizes.table_width,)
        if not fits or places[:, 1].max() >= len(tables) or (count and wanted.max() >= rows):
            return tokens, places, tables, wanted
        more = padded(rows, sizes.rows) - rows
        used = 1 + max(0, int(places[:, 0].max())) // sizes.page_rows  # columns of the tables
        width = min(sizes.table_width, max(_LEAST_WIDTH, 1 << (used - 1).bit_length()))
        added = np.zeros((more, 2), np.int32)
        added[:, 1] = range(len(tables), len(tables) + more)
        return (
            np.concatenate([tokens, np.zeros((1, more), np.int32)], axis=1),
            np.concatenate([places, added]),
            np.concatenate([tables[:, :width], np.full((_ADDED, width), sizes.pages, np.int32)]),
            np.concatenate([wanted, np.zeros(padded(count, sizes.wanted) - count, np.int32)]),
        )
