  // Q, {{ keys }} rows at a time: q through the memory of keys{{ ", rest through that of values" if exact }}.
  {% set q_words = split * words %}
  {% set q_loads = (keys * q_words + lanes - 1) // lanes %}
  {% set rounds = range(0, 16 * row_blocks, keys) %}
  {% set guarded = keys * q_words % lanes > 0 %}
  {% for first in rounds %}
  {% for i in range(q_loads) %}
  {% set name = "x%d_%d" % (first, i) %}
  {% for j in range(unit // 4) %}
  var {{ name }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {
    let place = index + {{ i * lanes }}u;
    let word = place % {{ q_words }}u;
    let row = min(first_row + {{ first }}u + place / {{ q_words }}u, last_row);
    let head = row / params.group_size * heads + kv_head * params.group_size + row % params.group_size;
    {% if q_words != head_words %}
    if (word < {{ head_words }}u) {
    {% endif %}
      {% for j in range(unit // 4) %}
      {{ name }}_{{ j }} = bounded(params.scale * q[head * {{ head_dim // 4 }}u + word * {{ unit // 4 }}u + {{ j }}u]{{ order }});
      {% endfor %}
    {% if q_words != head_words %}
    }
    {% endif %}
  }
  {% endfor %}
  {% endfor %}
  {% for first in rounds %}
  {% for i in range(q_loads) %}
  {% set name = "x%d_%d" % (first, i) %}
  {% if guarded %}
  if (index + {{ i * lanes }}u < {{ keys * q_words }}u) {
  {% else %}
  {
  {% endif %}
    let place = index + {{ i * lanes }}u;
    let to = place / {{ q_words }}u * {{ kv_row }}u + place % {{ words }}u;
    let to_part = place % {{ q_words }}u / {{ words }}u;
    {% if not exact and unit == 8 %}
    k_tile[to_part][to] = halves({{ name }}_0, {{ name }}_1);
    {% elif not exact %}
    k_tile[to_part][to] = halves({{ name }}_0, vec4<f32>()).xy;
    {% elif unit == 8 %}
    k_tile[to_part][to] = halves(upper({{ name }}_0), upper({{ name }}_1));
    v_tile[to_part][to] = halves({{ name }}_0 - upper({{ name }}_0), {{ name }}_1 - upper({{ name }}_1));
    {% else %}
    let both = halves(upper({{ name }}_0), {{ name }}_0 - upper({{ name }}_0));
    k_tile[to_part][to] = both.xy;
    v_tile[to_part][to] = both.zw;
    {% endif %}
  }
  {% endfor %}
  workgroupBarrier();
  {% for block in range(0, keys, 16) %}
  if (subgroup / {{ split }}u == {{ (first + block) // 16 }}u) {
    {% for d in range(dims) %}
    q{{ d }} = subgroupMatrixLoad<Left, row_major>(&k_tile[part], {{ block * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
    {% if exact %}
    rest{{ d }} = subgroupMatrixLoad<Left, row_major>(&v_tile[part], {{ block * kv_row + 16 * d // unit }}u, {{ kv_row }}u);
    {% endif %}
    {% endfor %}
  }
  {% endfor %}
  workgroupBarrier();
  {% endfor %}
  {% if split * words != head_words %}
  // Dims behind the head are zeros, which no tile overwrites.
  for (var i = index; i < {{ keys }}u; i += {{ lanes }}u) {
    for (var j = {{ head_words }}u; j < {{ split * words }}u; j++) {
      k_tile[j / {{ words }}u][i * {{ kv_row }}u + j % {{ words }}u] = Staged();
      v_tile[j / {{ words }}u][i * {{ kv_row }}u + j % {{ words }}u] = Staged();
    }
  }
  {% endif %}
