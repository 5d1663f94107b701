  {% macro new_parts(x) %}{% for e in range(quads) %}{{ ", " if e }}new_{{ x }}{{ e }}{% endfor %}{% endmacro %}
  // The chunk's new rows of the caches, a subgroup each: nobody else reads them in this dispatch.
  if (first + count > position) {
    let end = first + count;
    for (var begin = max(position, first); begin < end; begin += {{ subgroups }}u) {
      let column = min(begin + subgroup, end - 1u);
      let token = column - position;
      let given = (token * params.kv_heads + kv_head) * {{ units * quads }}u;
      let place = (column * params.kv_heads + kv_head) * {{ units }}u;
      {% if cache == "int8" %}
      {% for x, element in (("k", "rotated_k(given, i, token)"), ("v", "v[given + i]")) %}
      var {{ x }}_largest = 0.0;
      for (var i = lane; i < {{ units * quads }}u; i += {{ subgroup }}u) {
        {{ x }}_largest = max({{ x }}_largest, largest_of({{ element }}));
      }
      let {{ x }}_scale = int8_scale(subgroupMax({{ x }}_largest));
      let {{ x }}_divisor = int8_divisor({{ x }}_scale);
      if (lane == 0u) {
        {{ x }}_scales[column * params.kv_heads + kv_head] = {{ x }}_scale;
      }
      {% endfor %}
      {% endif %}
      for (var u = lane; u < {{ units }}u; u += {{ subgroup }}u) {
        {% for e in range(quads) %}
        let i{{ e }} = u * {{ quads }}u + {{ e }}u;
        {% if cache == "int8" %}
        let new_k{{ e }} = int8_codes(rotated_k(given, i{{ e }}, token) / k_divisor);
        let new_v{{ e }} = int8_codes(v[given + i{{ e }}] / v_divisor);
        {% else %}
        let new_k{{ e }} = store(rotated_k(given, i{{ e }}, token));
        let new_v{{ e }} = store(v[given + i{{ e }}]);
        {% endif %}
        {% endfor %}
        {% for x in "kv" %}
        {{ x }}_cache[place + u] = {{ "new_%s0" % x if quads == 1 else "CacheLoad(%s)" % new_parts(x) }};
        {% endfor %}
      }
    }
    storageBarrier();
  }
