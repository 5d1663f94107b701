  // The groups of a subgroup are put together in its lanes, the subgroups in workgroup memory.
  {% for a in range(my_rows) %}
  {{ over_row("total%d" % a, "# + @") | indent(2) }}
  {% endfor %}
  {% for r in range(rows) %}
  {
    let of_group = {{ of_row("largest", r) }};
    var most = of_group;
    {{ over_groups("most", "max(#, @)") | indent(4) }}
    let factor = exp(max(of_group - most, -100.0));
    var all = factor * {{ of_row("total", r) }};
    {{ over_groups("all", "# + @") | indent(4) }}
    {% for e in range(vectors) %}
    o{{ r }}_{{ e }} *= factor;
    {{ over_groups("o%d_%d" % (r, e), "# + @") | indent(4) }}
    {% endfor %}
    if (lane < {{ lanes }}u) {
      {% for e in range(vectors) %}
      {% set l = e // quads %}
      if (unit + {{ l * lanes }}u < {{ units }}u) {
        parts[(subgroup * {{ rows }}u + (my_row ^ {{ r }}u)) * {{ units * quads }}u + place{{ l }} * {{ quads }}u + {{ e % quads }}u] = o{{ r }}_{{ e }};
      }
      {% endfor %}
    }
    if (lane == 0u) {
      part_stats[subgroup * {{ rows }}u + {{ r }}u] = vec2<f32>(most, all);
    }
  }
  {% endfor %}
  workgroupBarrier();
  for (var i = index; i < {{ rows * units * quads }}u; i += {{ subgroup * subgroups }}u) {
    let row = i / {{ units * quads }}u;
    let quad = i % {{ units * quads }}u;
    var most = LOWEST;
    for (var s = 0u; s < {{ subgroups }}u; s++) {
      most = max(most, part_stats[s * {{ rows }}u + row].x);
    }
    var all = 0.0;
    var sum = vec4<f32>();
    for (var s = 0u; s < {{ subgroups }}u; s++) {
      let stat = part_stats[s * {{ rows }}u + row];
      let factor = exp(max(stat.x - most, -100.0));
      all += factor * stat.y;
      sum += factor * parts[s * {{ rows * units * quads }}u + i];
    }
    let packed_row = first_row + row;
    if (packed_row <= last_row) {
      if (params.splits == 1u) {
        let head = (packed_row / params.group_size * params.kv_heads + kv_head) * params.group_size + packed_row % params.group_size;
        out[head * {{ units * quads }}u + quad] = sum / all;
      } else {
        let chunk = (kv_head * params.rows + packed_row) * params.splits + group.y;
        sums[chunk * {{ units * quads }}u + quad] = sum;
        if (quad == 0u) {
          stats[chunk] = vec2<f32>(most, all);
        }
      }
    }
  }
