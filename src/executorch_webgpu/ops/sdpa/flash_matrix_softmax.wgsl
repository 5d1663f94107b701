    // The online softmax of a tile: half a row a lane, no branch, so that it mixes with the products above.
    {% for j in range(quads) %}
    score{{ j }} = select(vec4<f32>(LOWEST), score{{ j }}, my_columns + (start + {{ 4 * j }}u) < vec4<u32>(visible));
    {% endfor %}
    var most = score0;
    {% for j in range(1, quads) %}
    most = max(most, score{{ j }});
    {% endfor %}
    let side_top = max(max(most.x, most.y), max(most.z, most.w));
    let top = max(side_top, subgroupShuffleXor(side_top, 16u));
    let before = largest;
    largest = select(before, top, top > before + RESCALE);
    let factor = exp2(max(before - largest, -200.0));
    var sum = vec4<f32>();
    {% for j in range(quads) %}
    let weight{{ j }} = exp2(score{{ j }} - largest);
    sum += weight{{ j }};
    {% endfor %}
    {% for j in range(0, quads, 2) %}
    probabilities[subgroup][my_probabilities + {{ j // 2 }}u] = halves(weight{{ j }}, weight{{ j + 1 }});
    {% endfor %}
    total = total * factor + sum.x + sum.y + sum.z + sum.w;
    if (largest > before && start > 0u) {
      atomicStore(&grown[0], 1u);
    }
