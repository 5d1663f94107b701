{#
Pages of a KV cache: each holds 2^page_shift rows of one sequence, and lies somewhere in a pool.
#}
@group(0) @binding(20) var<storage, read> block_tables: array<i32>;  // of each sequence its pages, in order

// The row of the pool where a sequence's row lies, whose page is `page`.
fn row_of_page(page: i32, row: u32, page_shift: u32) -> u32 {
  return (u32(page) << page_shift) | (row & ((1u << page_shift) - 1u));
}

// The same, of a sequence whose pages begin at `table` in block_tables.
fn pool_row(table: u32, row: u32, page_shift: u32) -> u32 {
  return row_of_page(block_tables[table + (row >> page_shift)], row, page_shift);
}
