{% macro word(i, e) %}k{{ i }}_{{ e // quads }}{{ "[%d]" % (e % quads) if quads > 1 }}{% endmacro %}
{% macro words(i) %}{% for e in range(loads * quads) %}{{ "," if e }}{{ word(i, e) }}{% endfor %}{% endmacro %}
{% macro exchange_dot(r, i) %}
exchange[({{ r * key_unroll + i }}u * parts + part) * stride + lane] = {{ "k_scale%d * " % i if cache == "int8" }}dot{{ i }}_{{ r }};
{%- endmacro %}
  // Scores of the chunk, a tile of keys at a time, and the largest that this scorer saw. The next tile is on its way
  // while scorers add up the parts of this one. Rows behind the chunk are read as its last one, and never seen.
  let tile_keys = parts * {{ key_unroll }}u;
  {{ declare_rows("k", key_unroll) | indent(2) }}
  {{ load_rows("k", key_unroll, "0u") | indent(2) }}
  let stride = lanes | 1u;  // odd, so that scorers of neighbouring keys read different banks
  var largest = LOWEST;
  for (var tile = 0u; tile < count; tile += tile_keys) {
    if (part < parts) {
      {% for i in range(key_unroll) %}
      {% if cache == "int8" %}
      {% for r in range(rows) %}
      let dot{{ i }}_{{ r }} = step{{ r }} * ({{ query_bytes.dot(r, words(i).split(",")) }});
      {{ exchange_dot(r, i) }}
      {% endfor %}
      {% else %}
      {% for e in range(loads * quads) %}
      let k{{ i }}_quad{{ e }} = cache_quad{{ e % quads }}(k{{ i }}_{{ e // quads }});
      {% endfor %}
      {% for r in range(rows) %}
      let dot{{ i }}_{{ r }} =
        {%- for e in range(loads * quads) %}{{ " +" if e }} dot(q{{ r }}_{{ e }}, k{{ i }}_quad{{ e }}){% endfor %};
      {{ exchange_dot(r, i) }}
      {% endfor %}
      {% endif %}
      {% endfor %}
    }
    if (tile + tile_keys < count) {
      {{ load_rows("k", key_unroll, "tile + tile_keys") | indent(6) }}
    }
    workgroupBarrier();
    if (own_row < ROWS) {
      for (var key = slot; key < tile_keys; key += row_width) {
        let at = (own_row * tile_keys + key) * stride;
        var score = exchange[at];
        for (var l = 1u; l < lanes; l++) {
          score += exchange[at + l];
        }
        largest = max(largest, select(LOWEST, score, tile + key < visible));
        scores[own_row * score_columns + tile + key] = score;
      }
    }
    workgroupBarrier();
  }
