{#
Pages of a KV cache: each holds 2^page_shift rows of one sequence, and lies somewhere in a pool.

Inputs:
  paged = True | False: whether there are pages; a cache of one sequence has its rows one after the other
#}
{% if paged %}
@group(0) @binding(20) var<storage, read> block_tables: array<i32>;  // of each sequence its pages, in order

// The row of the pool where a sequence's row lies, whose page is `page`.
fn row_of_page(page: i32, row: u32, page_shift: u32) -> u32 {
  return (u32(page) << page_shift) | (row & ((1u << page_shift) - 1u));
}

{% endif %}
// Where a row of a cache lies, of a sequence whose pages begin at `table` in block_tables.
fn pool_row(table: u32, row: u32, page_shift: u32) -> u32 {
  {% if paged %}
  return row_of_page(block_tables[table + (row >> page_shift)], row, page_shift);
  {% else %}
  return row;
  {% endif %}
}
