{#
Pages of a KV cache: each holds 2^page_shift rows of one sequence, and lies somewhere in a pool.
#}
// The row of the pool where a sequence's row lies, whose page is `page`.
fn pool_row(page: i32, row: u32, page_shift: u32) -> u32 {
  return (u32(page) << page_shift) | (row & ((1u << page_shift) - 1u));
}
