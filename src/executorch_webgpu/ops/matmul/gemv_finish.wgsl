  {% if subgroups %}
  // Subgroups are runs of neighbouring invocations, and no longer than a team.
  let part = index / subgroup_size;
  let parts_of_team = lanes / subgroup_size;
  {% for r in range(rows) %}
  {% for u in range(quads_of_team) %}
  let total{{ r }}_{{ u }} = subgroupAdd(sum{{ r }}_{{ u }});
  {% endfor %}
  {% endfor %}
  {% for s in range(squares) %}
  let total_squares{{ s }} = subgroupAdd(squares{{ s }});
  {% endfor %}
  if (subgroup_lane == 0u) {
  {% else %}
  let part = index;
  let parts_of_team = lanes;
  {
  {% endif %}
    {% for r in range(rows) %}
    {% for u in range(quads_of_team) %}
    partials[part * {{ parts }}u + {{ r * quads_of_team + u }}u] = {{ "total" if subgroups else "sum" }}{{ r }}_{{ u }};
    {% endfor %}
    {% endfor %}
    {% for s in range(squares) %}
    partials[part * {{ parts }}u + {{ sums + s }}u] = {{ "total_" if subgroups }}squares{{ s }};
    {% endfor %}
  }
  workgroupBarrier();

  // An invocation for each element of the output: {{ rows }} rows of teams * {{ out_quads }} quads.
  for (var i = index; i < teams * {{ rows * out_quads * 4 }}u; i += wg_size) {
    {{ element("i") | indent(4) }}
    let team_part = out_quad / {{ out_quads }}u * parts_of_team;
    let at = team_part * {{ parts }}u + r * {{ quads_of_team }}u + out_quad % {{ out_quads }}u{{ " * 2u" if gated }};
    var value = 0.0;
    {% if gated %}
    var other = 0.0;
    {% endif %}
    {% if norm %}
    var square = 0.0;
    {% endif %}
    for (var p = 0u; p < parts_of_team; p++) {
      value += partials[at + p * {{ parts }}u][c];
      {% if gated %}
      other += partials[at + p * {{ parts }}u + 1u][c];
      {% endif %}
      {% if norm %}
      square += partials[(team_part + p) * {{ parts }}u + {{ sums }}u + r / 4u][r % 4u];
      {% endif %}
    }
    {% if norm %}
    let factor = 1.0 / sqrt(square / f32(params.k) + params.eps);
    value *= factor;
    {{ "other *= factor;" if gated }}
    {% endif %}
    {% set end = "params.ends[%d]" % (outputs - 1) %}
    if (row < params.m && first_quad + out_quad < {{ end }}) {
      {% if gated %}
      let position = tile_quad * 4u + out_quad * 8u + c;
      let result = silu(with_bias(value, position)) * with_bias(other, position + 4u);
      {% else %}
      let result = with_bias(value, (tile_quad + out_quad) * 4u + c);
      {% endif %}
      {% if residual %}
      if (i == index) {
        write(row, first_quad + out_quad, c, result + ahead);
      } else {
        store(row, first_quad + out_quad, c, result);
      }
      {% else %}
      store(row, first_quad + out_quad, c, result);
      {% endif %}
    }
  }
