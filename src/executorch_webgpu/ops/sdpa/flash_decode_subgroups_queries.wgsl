  // The queries of this lane's rows, {{ "rotated and " if rotation }}times the scale of the scores; against int8 codes as integers of three bytes.
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + (my_row ^ {{ r }}u), last_row);
  let q{{ r }} = ((row{{ r }} / params.group_size * params.kv_heads + kv_head) * params.group_size
    + row{{ r }} % params.group_size) * {{ units * quads }}u;
  {% for e in range(vectors) %}
  {% set l = e // quads %}
  {% set i = "place%d * %du + %du" % (l, quads, e % quads) %}
  {% if rotation %}
  let turned{{ r }}_{{ e }} = rotated_q(q{{ r }}, {{ i }}, row{{ r }} / params.group_size);
  if (group.y == 0u && subgroup == 0u && lane < {{ lanes }}u) {
    turned[q{{ r }} + {{ i }}] = turned{{ r }}_{{ e }};
  }
  {% endif %}
  let q{{ r }}_{{ e }} = select(
    vec4<f32>(), params.scale * {{ "turned%d_%d" % (r, e) if rotation else "q[q%d + %s]" % (r, i) }}, unit + {{ l * lanes }}u < {{ units }}u);
  var o{{ r }}_{{ e }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% if cache == "int8" %}
  {% for r in range(rows) %}
  {{ query_bytes.extremes(r, vectors, "largest0_%d" % r, "infinite0_%d" % r) | indent(2) }}
  {% endfor %}
  {# Over all lanes of a row, which another lane may count as another one. #}
  {% set last = namespace(n=0) %}
  {% for i in range(6) if 2 ** i < lanes %}
  {% set distance = 2 ** i // spread * mine // unroll %}
  {% for r in range(rows) %}
  {% set theirs = "%d_%d" % (i, r + distance if distance and r // distance % 2 == 0 else r - distance) %}
  let largest{{ i + 1 }}_{{ r }} = max(largest{{ i }}_{{ r }}, subgroupShuffleXor(largest{{ theirs }}, {{ 2 ** i }}u));
  let infinite{{ i + 1 }}_{{ r }} = max(infinite{{ i }}_{{ r }}, subgroupShuffleXor(infinite{{ theirs }}, {{ 2 ** i }}u));
  {% endfor %}
  {% set last.n = i + 1 %}
  {% endfor %}
  {% for r in range(rows) %}
  {{ query_bytes.bytes(r, vectors, "largest%d_%d" % (last.n, r), "infinite%d_%d" % (last.n, r)) | indent(2) }}
  {% endfor %}
  {% endif %}
