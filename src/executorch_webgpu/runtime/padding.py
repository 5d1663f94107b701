"""Steps of a few sizes only: rows that nobody wants are added, so that plans of a size are soon known and found again.

Each of these rows is a text of its own, in the last rows of the block tables: all of them lie in one page of the pool,
which nobody else has.
"""

from __future__ import annotations

from dataclasses import replace

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


class Padding:
    """What is added to steps of ``sizes``, whose sequences and pages are those of the caller."""

    def __init__(self, sizes: BatchSizes) -> None:
        self._sizes = sizes
        self._tables: dict[int, Ints] = {}  # by their width, so that a step only writes what it is given

    @property
    def with_room(self) -> BatchSizes:
        """Sizes with the further sequences and their page."""
        return replace(self._sizes, sequences=self._sizes.sequences + _ADDED, pages=self._sizes.pages + 1)

    def __call__(self, tokens: Ints, places: Ints, tables: Ints, wanted: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Tokens [1, T], places [T, 2], block tables [B, W] and wanted rows [R] as the graph takes them.

        Of the tables that is what the rows' own texts fill, in powers of two; the next call changes it.
        Whoever gives what cannot be gets it back, for the graph to refuse. Raises InvalidInputError for a page or
        a sequence that is not there.
        """
        rows, count, sizes = tokens.shape[-1], len(wanted), self._sizes
        if tables.size and int(tables.max()) >= sizes.pages:
            raise InvalidInputError(f"the pool has {sizes.pages} pages, 0 to {sizes.pages - 1}, not {tables.max()}")
        if len(tables) > sizes.sequences:
            raise InvalidInputError(f"block tables of {len(tables)} sequences are more than {sizes.sequences}")
        fits = 0 < rows <= sizes.rows and count <= sizes.wanted
        fits = fits and places.shape == (rows, 2) and tables.shape[1:] == (sizes.table_width,)
        if not fits or (count and int(wanted.max()) >= rows):
            return tokens, places, tables, wanted
        last, sequence = places.max(axis=0).tolist()
        if sequence >= len(tables):
            return tokens, places, tables, wanted
        used = 1 + max(0, last) // sizes.page_rows  # columns of the tables
        width = min(sizes.table_width, max(_LEAST_WIDTH, 1 << (used - 1).bit_length()))
        if more := padded(rows, sizes.rows) - rows:
            added = np.zeros((more, 2), np.int32)
            added[:, 1] = range(sizes.sequences, sizes.sequences + more)
            tokens = np.concatenate([tokens, np.zeros((1, more), np.int32)], axis=1)
            places = np.concatenate([places, added])
        if unwanted := padded(count, sizes.wanted) - count:
            wanted = np.concatenate([wanted, np.zeros(unwanted, np.int32)])
        return tokens, places, self._widened(tables, width), wanted

    def _widened(self, tables: Ints, width: int) -> Ints:
        """The first columns of tables, and the rows of added texts."""
        sizes = self._sizes
        wide = self._tables.get(width)
        if wide is None:
            wide = self._tables[width] = np.full((sizes.sequences + _ADDED, width), sizes.pages, np.int32)
        wide[: len(tables)] = tables[:, :width]
        return wide
