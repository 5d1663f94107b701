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
_LEAST_WIDTH, _LEAST_TEXTS = 8, 8  # of block tables

Ints = NDArray[np.int32]


def padded(count: int, most: int) -> int:
    """The size of a step of ``count`` rows, at least that and at most ``most``."""
    size = next((size for size in _SMALL if size >= count), -(-count // 64) * 64)
    return min(size, most)


class Padding:
    """What is added to steps of ``sizes``, whose sequences and pages are those of the caller."""

    def __init__(self, sizes: BatchSizes) -> None:
        self._sizes = sizes
        self._tables: dict[tuple[int, int], Ints] = {}  # by their size, so that a step only writes what it is given

    @property
    def with_room(self) -> BatchSizes:
        """Sizes with the further sequences and their page."""
        return replace(self._sizes, sequences=self._sizes.sequences + _ADDED, pages=self._sizes.pages + 1)

    def __call__(self, tokens: Ints, places: Ints, tables: Ints, wanted: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Tokens [1, T], places [T, 2], block tables [B, W] and wanted rows [R] as the graph takes them.

        Of the tables that is what the rows' own texts may fill, in powers of two; the next call changes it.
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
        texts = min(sizes.sequences, max(_LEAST_TEXTS, 1 << sequence.bit_length()))
        if more := padded(rows, sizes.rows) - rows:
            added = np.zeros((more, 2), np.int32)
            added[:, 1] = range(texts, texts + more)
            tokens = np.concatenate([tokens, np.zeros((1, more), np.int32)], axis=1)
            places = np.concatenate([places, added])
        if unwanted := padded(count, sizes.wanted) - count:
            wanted = np.concatenate([wanted, np.zeros(unwanted, np.int32)])
        return tokens, places, self._filled(tables, texts, width), wanted

    @property
    def step_sizes(self) -> list[int]:
        """Rows of the steps that there are."""
        most = self._sizes.rows
        return sorted({padded(count, most) for count in (*_SMALL[1:], *range(64, most + 1, 64), most)})

    def step_of_none(self, rows: int) -> tuple[Ints, Ints, Ints, Ints]:
        """What a step of so many rows takes in which no row is anybody's, and as many draw as may."""
        texts = min(self._sizes.sequences, max(_LEAST_TEXTS, 1 << (rows - 1).bit_length()))
        places = np.zeros((rows, 2), np.int32)
        places[:, 1] = texts + np.arange(rows) % _ADDED
        tables = self._filled(np.zeros((0, self._sizes.table_width), np.int32), texts, min(self._sizes.table_width, 8))
        wanted = np.zeros(padded(min(rows, self._sizes.wanted), self._sizes.wanted), np.int32)
        return np.zeros((1, rows), np.int32), places, tables, wanted

    def _filled(self, tables: Ints, texts: int, width: int) -> Ints:
        """The first rows and columns of tables, and the rows of added texts."""
        found = self._tables.get((texts, width))
        if found is None:
            found = self._tables[texts, width] = np.full((texts + _ADDED, width), self._sizes.pages, np.int32)
        given = tables[:texts, :width]
        found[: len(given)] = given
        return found
