    // The online softmax of a tile: half a row a lane.
    {% for j in range(quads) %}
    var s{{ j }} = scores[my_scores + {{ j }}u] * params.scale;
    {% endfor %}
    if (start + {{ keys }}u > visible) {
      {% for j in range(quads) %}
      s{{ j }} = select(vec4<f32>(LOWEST), s{{ j }}, quad_columns + (start + {{ 4 * j }}u) < vec4<u32>(visible));
      {% endfor %}
    }
    var most = s0;
    {% for j in range(1, quads) %}
    most = max(most, s{{ j }});
    {% endfor %}
    let half_top = max(max(most.x, most.y), max(most.z, most.w));
    let top = max(half_top, subgroupShuffleXor(half_top, 16u));
    var factor = 1.0;
    if (top > largest + RESCALE) {
      factor = exp2(max(largest - top, -200.0));
      largest = top;
      total *= factor;
      if (start > 0u) {
        atomicStore(&grown[0], 1u);
      }
    }
    var sum = vec4<f32>();
    {% for j in range(quads) %}
    let p{{ j }} = exp2(s{{ j }} - largest);
    sum += p{{ j }};
    probabilities[my_probabilities + {{ j }}u] = vec4<f16>(p{{ j }});
    {% endfor %}
    total += sum.x + sum.y + sum.z + sum.w;
