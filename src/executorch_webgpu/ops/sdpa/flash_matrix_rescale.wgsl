      // Through the memory of the scores, {{ keys }} dims at a time, half a row a lane. The next tile's scores wait there:
      // they are taken out first and put back at the end.
      {% for j in range(quads) %}
      let waiting{{ j }} = scores[subgroup][my_scores + {{ j }}u];
      {% endfor %}
      workgroupBarrier();
      {% for first in range(0, dims, keys // 16) %}
      {% set tiles = range(first, [first + keys // 16, dims] | min) %}
      {% for d in tiles %}
      subgroupMatrixStore<row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, o{{ d }}, {{ s_row }}u);
      {% endfor %}
      workgroupBarrier();
      for (var j = 0u; j < {{ quads }}u; j++) {
        scores[subgroup][my_scores + j] *= factor;
      }
      workgroupBarrier();
      {% for d in tiles %}
      o{{ d }} = subgroupMatrixLoad<Sum, row_major>(&scores[subgroup], {{ 4 * (d - first) }}u, {{ s_row }}u);
      {% endfor %}
      workgroupBarrier();
      {% endfor %}
      {% for j in range(quads) %}
      scores[subgroup][my_scores + {{ j }}u] = waiting{{ j }};
      {% endfor %}
      workgroupBarrier();
