  // Sums go through workgroup memory, a matrix of a subgroup at a time: only there can they be seen by element.
  {% set sums, blocks = ("w_tiles", column_subgroups) if column_subgroups >= row_subgroups else ("x_tiles", row_subgroups) %}
  {% set several = row_subgroups * column_subgroups > blocks %}
  let sums_block = subgroup % {{ blocks }}u;
  let sums_from = {{ "subgroup / %du * 80u" % blocks if several else "0u" }};
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&{{ sums }}[sums_block], {{ "sums_from" if several else "0u" }}, sum{{ i }}_{{ j }}, 5u);
  workgroupBarrier();
  for (var item = lane; item < {{ 32 if gated else 64 }}u; item += 32u) {
    let row = tile_row + subgroup_row + {{ 16 * i }}u + item / {{ 2 if gated else 4 }}u;
    let quad = tile_quad + subgroup_column / 4u + {{ 4 * j }}u + item % {{ "2u * 2u" if gated else "4u" }};
    let at = sums_from + item / {{ 2 if gated else 4 }}u * 5u + item % {{ "2u * 2u" if gated else "4u" }};
    if (row < params.m && quad < params.quads) {
      let value = scaled({{ sums }}[sums_block][at], row, quad);
      {% if gated %}
      let other = scaled({{ sums }}[sums_block][at + 1u], row, quad + 1u);
      {% endif %}
      for (var c = 0u; c < 4u; c++) {
        {% if gated %}
        let gate = with_bias(value[c], quad * 4u + c);
        store(row, quad / 2u, c, silu(gate) * with_bias(other[c], quad * 4u + 4u + c));
        {% else %}
        store(row, quad, c, with_bias(value[c], quad * 4u + c));
        {% endif %}
      }
    }
  }
  {% endfor %}
  {% endfor %}
