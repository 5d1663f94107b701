{#
Packed rows: row = token * group_size + query head in its group.

Query heads that share a KV head are rows of one matrix, so that a key or a value is read once for all of them.
#}
// Which head of q or out, [S, Hq, D], a packed row is.
fn query_head(row: u32, kv_head: u32, kv_heads: u32, group_size: u32) -> u32 {
  return (row / group_size * kv_heads + kv_head) * group_size + row % group_size;
}
