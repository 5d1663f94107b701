  // Weighted sums of the values; every loader adds up its own rows of the cache.
  {% for r in range(rows) %}
  {% for e in range(loads * quads) %}
  var sum{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  let value_part = min(part, parts - 1u);  // what invocations beyond the parts sum, nobody reads
  for (var tile = 0u; tile < count; tile += tile_rows) {
    {% for i in range(value_unroll) %}
    {% for e in range(loads * quads) %}
    let v{{ i }}_quad{{ e }} = cache_quad{{ e % quads }}(v{{ i }}_{{ e // quads }});
    {% endfor %}
    {% for r in range(rows) %}
    let weight{{ i }}_{{ r }} = {{ "v_scale%d * " % i if cache == "int8" }}scores[{{ r }}u * score_columns + tile + {{ i }}u * parts + value_part];
    {% for e in range(loads * quads) %}
    sum{{ r }}_{{ e }} += weight{{ i }}_{{ r }} * v{{ i }}_quad{{ e }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    if (tile + tile_rows < count) {
      {{ load_rows("v", value_unroll, "tile + tile_rows") | indent(6) }}
    }
  }

  // The parts are added up, {{ rows_per_round }} packed row(s) at a time. Padding keeps elements of a load in different banks.
  let padded = wg_size + {{ [32 // elements, 1] | max }}u;
  let head_dim = lanes * {{ elements }}u;
  {% for start in range(0, rows, rows_per_round) %}
  {% set round_rows = [rows_per_round, rows - start] | min %}
  {% for r in range(round_rows) %}
  {% for e in range(elements) %}
  exchange[{{ r * elements + e }}u * padded + index] = sum{{ start + r }}_{{ e // 4 }}[{{ e % 4 }}];
  {% endfor %}
  {% endfor %}
  workgroupBarrier();
  for (var i = index; i < {{ round_rows }}u * head_dim; i += wg_size) {
    let r = i / head_dim;
    let dim = i % head_dim;
    let load = dim / {{ width }}u;
    let element = load / lanes * {{ width }}u + dim % {{ width }}u;
    let at = (r * {{ elements }}u + element) * padded + load % lanes;
    var sum = exchange[at];
    for (var p = 1u; p < parts; p++) {
      sum += exchange[at + p * lanes];
    }
    let row = first_row + {{ start }}u + r;
    if (row <= last_row) {
      if (params.splits == 1u) {
        var total = 0.0;
        for (var j = 0u; j < 8u; j++) {
          total += eighths[({{ start }}u + r) * 8u + j];
        }
        let head = (row / params.group_size * params.kv_heads + kv_head) * params.group_size + row % params.group_size;
        out[head * head_dim + dim] = sum / total;
      } else {
        sums[((kv_head * params.rows + row) * params.splits + group.y) * head_dim + dim] = sum;
      }
    }
  }
  {% if start + round_rows < rows %}
  workgroupBarrier();
  {% endif %}
  {% endfor %}
  if (own_row < ROWS && slot == 0u && first_row + own_row <= last_row) {
    var total = 0.0;
    for (var j = 0u; j < 8u; j++) {
      total += eighths[own_row * 8u + j];
    }
    if (params.splits > 1u) {
      stats[(kv_head * params.rows + first_row + own_row) * params.splits + group.y] = vec2<f32>(largest, total);
    }
  }
