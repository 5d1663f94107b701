"""Where the rows of many sequences lie in pools of pages."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Binding
from ..values import Tensor


@dataclass(frozen=True)
class Paging:
    """``places`` [T, 2] int32: of each row its position in its sequence, and the sequence's row of ``block_tables``.

    ``block_tables`` [B, W] int32: of each sequence its pages, in order; a page is an index into pools
    [pages, page_rows, heads, D]. ``page_rows`` is a power of two.
    """

    places: Tensor
    block_tables: Tensor
    page_rows: int

    @property
    def table_width(self) -> int:
        """Pages that a sequence may have."""
        return self.block_tables.dims[1]

    @property
    def capacity(self) -> int:
        """Rows that a sequence may have."""
        return self.table_width * self.page_rows

    @property
    def bindings(self) -> dict[str, Binding]:
        return {"places": self.places, "block_tables": self.block_tables}

    @property
    def params(self) -> dict[str, int]:
        return {"table_width": self.table_width, "page_shift": self.page_rows.bit_length() - 1}
