  // Q, {{ 2 * keys }} rows at a time, through the memory of K and V.
  {% for first in range(0, 16 * subgroups, 2 * keys) %}
  {% for part in ("q", "rest") %}
  for (var i = index; i < {{ 2 * keys * words }}u; i += {{ lanes }}u) {
    let row = min(first_row + {{ first }}u + i / {{ words }}u, last_row);
    let head = kv_head * params.group_size + row % params.group_size;
    let at = (row / params.group_size * heads + head) * {{ 2 * words }}u + i % {{ words }}u * 2u;
    {% if part == "q" %}
    let taken = halves(upper(q[at]), upper(q[at + 1u]));
    {% else %}
    let taken = halves(q[at] - upper(q[at]), q[at + 1u] - upper(q[at + 1u]));
    {% endif %}
    kv[i / {{ words }}u * {{ kv_row }}u + i % {{ words }}u] = taken;
  }
  workgroupBarrier();
  if (subgroup * 16u / {{ 2 * keys }}u == {{ first // (2 * keys) }}u) {
    let at = (subgroup * 16u - {{ first }}u) * {{ kv_row }}u;
    {% for d in range(dims) %}
    {{ part }}{{ d }} = subgroupMatrixLoad<Left, row_major>(&kv, at + {{ 2 * d }}u, {{ kv_row }}u);
    {% endfor %}
  }
  workgroupBarrier();
  {% endfor %}
  {% endfor %}
