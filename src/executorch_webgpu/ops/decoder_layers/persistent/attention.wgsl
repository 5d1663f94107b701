{#
Attention of one new token over the chunks of its context, and the new row of the caches.
#}
// Element e of a vector of `QKV` that begins at `source`, rotated by row `row` of the tables.
fn rotated(source: u32, e: u32, row: u32) -> f32 {
  let own = taken(source + e);
  {% if rotation == "halves" %}
  if (e >= {{ 2 * half }}u) {
    return own;
  }
  let other = taken(source + select(e - {{ half }}u, e + {{ half }}u, e < {{ half }}u));
  let entry = row * {{ 2 * half }}u + e;
  return own * cos_table[entry] + select(other, -other, e < {{ half }}u) * sin_table[entry];
  {% else %}
  let other = taken(source + (e ^ 1u));
  let entry = row * {{ half }}u + e / 2u;
  return own * cos_table[entry] + select(other, -other, e % 2u == 0u) * sin_table[entry];
  {% endif %}
}

fn attend(layer: u32, group: u32, groups: u32, index: u32, lane: u32) {
  let position = u32(input_pos);
  let context = position + 1u;
  let most = max(groups / KV_HEADS, 1u);
  let length = max(params.least_chunk, (context + most - 1u) / most);  // of a chunk
  let splits = (context + length - 1u) / length;
  let my_lane = index % LANES;
  for (var task = group; task < KV_HEADS * splits; task += groups) {
    let head = task % KV_HEADS;  // neighbours read rows together
    let split = task / KV_HEADS;
    let first = split * length;
    let is_last = split + 1u == splits;  // which has the new row, and `old` ones
    let old = min(first + length, position) - first;
    // ---- queries, the new key and the new value ----
    workgroupBarrier();
    for (var i = index; i < (ROWS + 2u) * HEAD_DIM; i += SIZE) {
      let row = i / HEAD_DIM;
      let e = i % HEAD_DIM;
      var value: f32;
      if (row < ROWS) {
        value = params.scale * rotated(QKV + (head * ROWS + row) * HEAD_DIM, e, u32(start_pos));
      } else if (row == ROWS) {
        value = rotated(QKV + Q_WIDTH + head * HEAD_DIM, e, u32(start_pos));
      } else {
        value = taken(QKV + Q_WIDTH + KV_WIDTH + head * HEAD_DIM + e);
      }
      shared_x[i / 4u][i % 4u] = value;
    }
    workgroupBarrier();
    let at = layer * params.caches_of_layer + head * UNITS + my_lane;
    let new_at = at + position * KV_HEADS * UNITS;
    let new_key = CacheLoad({% for v in range(vectors) %}stored(shared_x[(ROWS * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u]), {% endfor %});
    let new_value = CacheLoad({% for v in range(vectors) %}stored(shared_x[((ROWS + 1u) * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u]), {% endfor %});
    if (is_last && index < LANES) {
      k_caches[new_at] = new_key;
      v_caches[new_at] = new_value;
    }
    {% for r in range(rows) %}
    var largest{{ r }} = LOWEST;
    var total{{ r }} = 0.0;
    {% for v in range(vectors) %}
    let q{{ r }}_{{ v }} = shared_x[({{ r }}u * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u];
    var o{{ r }}_{{ v }} = vec4<f32>();
    {% endfor %}{% endfor %}
    // ---- rows of the caches; the new one stands behind the old ones ----
    let count = old + select(0u, 1u, is_last);
    for (var base = 0u; base < count; base += GROUPS * KEYS) {
      {% for u in range(keys) %}
      let row{{ u }} = base + index / LANES + {{ u }}u * GROUPS;
      let place{{ u }} = at + (first + min(row{{ u }}, max(old, 1u) - 1u)) * KV_HEADS * UNITS;
      var key{{ u }} = k_caches[place{{ u }}];
      {% endfor %}
      {% for u in range(keys) %}
      var value{{ u }} = v_caches[place{{ u }}];
      {% endfor %}
      {% for u in range(keys) %}
      if (is_last && row{{ u }} == old) {
        key{{ u }} = new_key;
        value{{ u }} = new_value;
      }
      {% for v in range(vectors) %}
      let key{{ u }}_{{ v }} = cache_quad{{ v }}(key{{ u }});
      {% endfor %}
      {% for r in range(rows) %}
      var s{{ r }}_{{ u }} = {% for v in range(vectors) %}{{ " + " if v }}dot(q{{ r }}_{{ v }}, key{{ u }}_{{ v }}){% endfor %};
      {% endfor %}{% endfor %}
      {% for bit in exchanges if bit < row_lanes %}{% for r in range(rows) %}{% for u in range(keys) %}
      s{{ r }}_{{ u }} += subgroupShuffleXor(s{{ r }}_{{ u }}, {{ bit }}u);
      {% endfor %}{% endfor %}{% endfor %}
      {% for r in range(rows) %}
      var top{{ r }} = LOWEST;
      {% for u in range(keys) %}
      s{{ r }}_{{ u }} = select(LOWEST, s{{ r }}_{{ u }}, row{{ u }} < count);
      top{{ r }} = max(top{{ r }}, s{{ r }}_{{ u }});
      {% endfor %}
      if (top{{ r }} > largest{{ r }} + RESCALE) {
        let factor = exp(max(largest{{ r }} - top{{ r }}, -100.0));
        largest{{ r }} = top{{ r }};
        total{{ r }} *= factor;
        {% for v in range(vectors) %}
        o{{ r }}_{{ v }} *= factor;
        {% endfor %}
      }
      {% for u in range(keys) %}
      s{{ r }}_{{ u }} = select(0.0, exp(s{{ r }}_{{ u }} - largest{{ r }}), row{{ u }} < count);
      total{{ r }} += s{{ r }}_{{ u }};
      {% endfor %}{% endfor %}
      {% for u in range(keys) %}{% for v in range(vectors) %}
      let value{{ u }}_{{ v }} = cache_quad{{ v }}(value{{ u }});
      {% for r in range(rows) %}
      o{{ r }}_{{ v }} += s{{ r }}_{{ u }} * value{{ u }}_{{ v }};
      {% endfor %}{% endfor %}{% endfor %}
    }
    // ---- groups of a subgroup, and then subgroups ----
    {% for r in range(rows) %}
    {
      var most_of_all = largest{{ r }};
      {% for bit in exchanges if row_lanes <= bit < subgroup %}
      most_of_all = max(most_of_all, subgroupShuffleXor(most_of_all, {{ bit }}u));
      {% endfor %}
      let factor = exp(max(largest{{ r }} - most_of_all, -100.0));
      total{{ r }} *= factor;
      {% for bit in exchanges if row_lanes <= bit < subgroup %}
      total{{ r }} += subgroupShuffleXor(total{{ r }}, {{ bit }}u);
      {% endfor %}
      {% for v in range(vectors) %}
      o{{ r }}_{{ v }} *= factor;
      {% for bit in exchanges if row_lanes <= bit < subgroup %}
      o{{ r }}_{{ v }} += subgroupShuffleXor(o{{ r }}_{{ v }}, {{ bit }}u);
      {% endfor %}{% endfor %}
      let part = index / SUBGROUP * ROWS + {{ r }}u;
      if (lane < LANES) {
        {% for v in range(vectors) %}
        shared_x[((ROWS + 2u + part) * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u] = o{{ r }}_{{ v }};
        {% endfor %}
      }
      if (lane == 0u) {
        part_stats[part] = vec2<f32>(most_of_all, total{{ r }});
      }
    }
    {% endfor %}
    workgroupBarrier();
    let stats_at = STATS + (head * splits + split) * ROWS * 2u;
    let sums_at = STATS + 2u * KV_HEADS * ROWS * splits + (head * splits + split) * ROWS * HEAD_DIM;
    for (var i = index; i < ROWS * HEAD_DIM; i += SIZE) {
      let row = i / HEAD_DIM;
      var largest = LOWEST;
      for (var p = row; p < SUBGROUPS * ROWS; p += ROWS) {
        largest = max(largest, part_stats[p].x);
      }
      var total = 0.0;
      var sum = 0.0;
      for (var p = row; p < SUBGROUPS * ROWS; p += ROWS) {
        let weight = exp(max(part_stats[p].x - largest, -100.0));
        total += weight * part_stats[p].y;
        let j = (ROWS + 2u + p) * HEAD_DIM + i % HEAD_DIM;
        sum += weight * shared_x[j / 4u][j % 4u];
      }
      if (splits == 1u) {
        hand_over(ATTENDED + head * ROWS * HEAD_DIM + i, sum / total);
      } else {
        hand_over(sums_at + i, sum);
        if (i % HEAD_DIM == 0u) {
          hand_over(stats_at + 2u * row, largest);
          hand_over(stats_at + 2u * row + 1u, total);
        }
      }
    }
    if (splits > 1u) {
      merge(head, splits, index);
    }
  }
}

// The chunks of a head together, by the workgroup whose chunk is the last one that is done.
fn merge(head: u32, splits: u32, index: u32) {
  storageBarrier();
  workgroupBarrier();
  if (index == 0u) {
    answer = atomicAdd(&work[DONE_CHUNKS + head], 1u) + 1u;
  }
  if (workgroupUniformLoad(&answer) != splits) {
    return;
  }
  for (var i = index; i < ROWS * HEAD_DIM; i += SIZE) {
    let stats_at = STATS + (head * splits * ROWS + i / HEAD_DIM) * 2u;
    let sums_at = STATS + 2u * KV_HEADS * ROWS * splits + head * splits * ROWS * HEAD_DIM + i;
    var largest = LOWEST;
    var total = 0.0;
    var sum = 0.0;
    for (var s = 0u; s < splits; s += 4u) {
      {% for u in range(4) %}
      let split{{ u }} = min(s + {{ u }}u, splits - 1u);
      let most{{ u }} = taken(stats_at + split{{ u }} * ROWS * 2u);
      let part{{ u }} = select(0.0, taken(stats_at + split{{ u }} * ROWS * 2u + 1u), s + {{ u }}u < splits);
      let value{{ u }} = select(0.0, taken(sums_at + split{{ u }} * ROWS * HEAD_DIM), s + {{ u }}u < splits);
      {% endfor %}
      let top = max(max(max(most0, most1), max(most2, most3)), largest);
      let before = exp(max(largest - top, -100.0));
      total *= before;
      sum *= before;
      largest = top;
      {% for u in range(4) %}
      let weight{{ u }} = exp(max(most{{ u }} - top, -100.0));
      total += weight{{ u }} * part{{ u }};
      sum += weight{{ u }} * value{{ u }};
      {% endfor %}
    }
    hand_over(ATTENDED + head * ROWS * HEAD_DIM + i, sum / total);
  }
  if (index == 0u) {
    atomicStore(&work[DONE_CHUNKS + head], 0u);
  }
}

