  // The result, through the memory of the scores, {{ keys }} dims at a time.
  let inverse = 1.0 / (total + subgroupShuffleXor(total, 16u));
  let head = packed_row / params.group_size * heads + kv_head * params.group_size + packed_row % params.group_size;
  let to = head * {{ head_dim // 4 }}u;
  let is_mine = first_row + subgroup / {{ split }}u * 16u + row < params.row_count;
  {% for first in range(0, dims, keys // 16) %}
  {% for d in range(first, [first + keys // 16, dims] | min) %}
  subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, {{ s_row }}u);
  {% endfor %}
  workgroupBarrier();
  for (var j = 0u; j < {{ quads }}u; j++) {
    let local_quad = {{ 4 * first }}u + side * {{ quads }}u + j;
    let quad = part * {{ 4 * dims }}u + local_quad;
    if (is_mine && local_quad < {{ 4 * dims }}u && quad < {{ head_dim // 4 }}u) {
      out[to + quad] = scores[subgroup][my_scores + j] * inverse;
    }
  }
  workgroupBarrier();
  {% endfor %}
