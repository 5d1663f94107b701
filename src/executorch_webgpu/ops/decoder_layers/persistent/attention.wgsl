{#
Attention of one new token over the chunks of its context, and the new row of the caches.
#}
struct Rows {  // of the caches, on their way
  {% for u in range(keys) %}
  key{{ u }}: CacheLoad,
  value{{ u }}: CacheLoad,
  {% endfor %}
}

struct Chunk {  // of a KV head's context, without the new row
  head: u32,
  split: u32,
  splits: u32,
  first: u32,
  count: u32,
}

// Chunks of a head that workgroups can compute at once.
fn most_splits(groups: u32) -> u32 {
  return max(groups / KV_HEADS, 1u);
}

fn chunk_of(task: u32, groups: u32) -> Chunk {
  let position = u32(input_pos);
  let most = most_splits(groups);
  let length = max(params.least_chunk, (position + most - 1u) / most);
  let split = task / KV_HEADS;  // neighbours have heads of the same rows
  let first = min(split * length, position);
  let count = min(length, position - first);
  return Chunk(task % KV_HEADS, split, max((position + length - 1u) / length, 1u), min(first, max(position, 1u) - 1u), count);
}

fn load_rows(layer: u32, chunk: Chunk, base: u32, index: u32) -> Rows {
  var rows: Rows;
  let at = layer * params.caches_of_layer + chunk.head * UNITS + index % LANES;
  {% for u in range(keys) %}
  let place{{ u }} = at + (chunk.first + min(base + index / LANES + {{ u }}u * GROUPS, max(chunk.count, 1u) - 1u)) * KV_HEADS * UNITS;
  rows.key{{ u }} = k_caches[place{{ u }}];
  {% endfor %}
  {% for u in range(keys) %}
  rows.value{{ u }} = v_caches[place{{ u }}];
  {% endfor %}
  return rows;
}

// Cosine and sine of the rotation of element e, by row `row` of the tables.
fn angle_of(e: u32, row: u32) -> vec2<f32> {
  {% if rotation == "halves" %}
  let entry = row * {{ 2 * half }}u + min(e, {{ 2 * half - 1 }}u);
  {% else %}
  let entry = row * {{ half }}u + e / 2u;
  {% endif %}
  return vec2<f32>(cos_table[entry], sin_table[entry]);
}

// Element e of a vector of `QKV`, given its partner of a rotation, rotated.
fn rotated(own: f32, other: f32, e: u32, angle: vec2<f32>) -> f32 {
  {% if rotation == "halves" %}
  let turned = own * angle.x + select(other, -other, e < {{ half }}u) * angle.y;
  return select(own, turned, e < {{ 2 * half }}u);
  {% else %}
  return own * angle.x + select(other, -other, e % 2u == 0u) * angle.y;
  {% endif %}
}

fn partner(e: u32) -> u32 {
  {% if rotation == "halves" %}
  return select(select(e - {{ half }}u, e + {{ half }}u, e < {{ half }}u), e, e >= {{ 2 * half }}u);
  {% else %}
  return e ^ 1u;
  {% endif %}
}

// Scores of a row that lanes have a part of each; afterwards all of them have all of it.
{% macro sum_of_lanes(name) %}
{% for bit in exchanges if bit < row_lanes %}
{{ name }} += subgroupShuffleXor({{ name }}, {{ bit }}u);
{% endfor %}
{% endmacro %}
fn attend(layer: u32, tag: u32, group: u32, groups: u32, index: u32, lane: u32) {
  let my_lane = index % LANES;
  let most = most_splits(groups);
  for (var task = group; task < KV_HEADS * most; task += groups) {
    let chunk = chunk_of(task, groups);
    let stats_at = STATS + (chunk.head * most + chunk.split) * ROWS * 2u;
    let sums_at = STATS + (2u * KV_HEADS * most + (chunk.head * most + chunk.split) * HEAD_DIM) * ROWS;
    if (chunk.split >= chunk.splits) {
      // Nobody reads what a context this short has no rows for, but its words are written in each layer, too.
      for (var i = index; i < ROWS * HEAD_DIM; i += SIZE) {
        hand_over(sums_at + i, 0.0, tag);
        if (i < 2u * ROWS) {
          hand_over(stats_at + i, 0.0, tag);
        }
      }
      continue;
    }
    let has_new_row = chunk.split + 1u == chunk.splits;
    var ahead = load_rows(layer, chunk, 0u, index);
    workgroupBarrier();
    // ---- queries, the new key and the new value ----
    {% set elements = (rows + 2) * head_dim %}{% set turns = (elements + size - 1) // size %}
    {% for i in range(turns) %}
    let e{{ i }} = min(index + {{ i * size }}u, {{ elements - 1 }}u);
    let row{{ i }} = e{{ i }} / HEAD_DIM;
    let begin{{ i }} = QKV + select(
      select(Q_WIDTH + KV_WIDTH + chunk.head * HEAD_DIM, Q_WIDTH + chunk.head * HEAD_DIM, row{{ i }} == ROWS),
      (chunk.head * ROWS + row{{ i }}) * HEAD_DIM, row{{ i }} < ROWS
    );
    let at{{ 2 * i }} = begin{{ i }} + e{{ i }} % HEAD_DIM;
    let at{{ 2 * i + 1 }} = begin{{ i }} + partner(e{{ i }} % HEAD_DIM);
    let angle{{ i }} = angle_of(e{{ i }} % HEAD_DIM, u32(start_pos));
    var word{{ 2 * i }}: u32;
    var word{{ 2 * i + 1 }}: u32;
    {% endfor %}
    var missing: u32;
    {{ await("word", "at", 2 * turns) | indent(4) -}}
    workgroupBarrier();
    {% for i in range(turns) %}
    let own{{ i }} = value_of(word{{ 2 * i }});
    let turned{{ i }} = rotated(own{{ i }}, value_of(word{{ 2 * i + 1 }}), e{{ i }} % HEAD_DIM, angle{{ i }});
    let scaled{{ i }} = select(own{{ i }}, turned{{ i }}, row{{ i }} <= ROWS) * select(1.0, params.scale, row{{ i }} < ROWS);
    if (index + {{ i * size }}u < {{ elements }}u) {
      shared_x[e{{ i }} / 4u][e{{ i }} % 4u] = bitcast<u32>(scaled{{ i }});
    }
    {% endfor %}
    workgroupBarrier();
    {% for r in range(rows) %}
    var largest{{ r }} = LOWEST;
    var total{{ r }} = 0.0;
    {% for v in range(vectors) %}
    let q{{ r }}_{{ v }} = shared_quad(({{ r }}u * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u);
    var o{{ r }}_{{ v }} = vec4<f32>();
    {% endfor %}{% endfor %}
    // ---- the new row: the first thing that the first lanes see, as it is kept ----
    if (has_new_row) {
      {% if cache == "float16" %}
      // NVIDIA's compiler leaves out what only converts there and back. It does not know that this is 0.
      let nothing = CacheLoad(params.layers >> 31u);
      {% endif %}
      let key = CacheLoad({% for v in range(vectors) %}stored(shared_quad((ROWS * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u)), {% endfor %}){{ " ^ nothing" if cache == "float16" }};
      let value = CacheLoad({% for v in range(vectors) %}stored(shared_quad(((ROWS + 1u) * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u)), {% endfor %}){{ " ^ nothing" if cache == "float16" }};
      {% for r in range(rows) %}
      var s{{ r }} = {% for v in range(vectors) %}{{ " + " if v }}dot(q{{ r }}_{{ v }}, cache_quad{{ v }}(key)){% endfor %};
      {{ sum_of_lanes("s%d" % r) | indent(6) -}}
      {% endfor %}
      if (index < LANES) {
        let to = layer * params.caches_of_layer + (u32(input_pos) * KV_HEADS + chunk.head) * UNITS + my_lane;
        k_caches[to] = key;
        v_caches[to] = value;
        {% for r in range(rows) %}
        total{{ r }} = 1.0;
        {% for v in range(vectors) %}
        o{{ r }}_{{ v }} = cache_quad{{ v }}(value);
        {% endfor %}{% endfor %}
      }
      {% for r in range(rows) %}
      largest{{ r }} = select(LOWEST, s{{ r }}, index < SUBGROUP);
      {% endfor %}
    }
    // ---- rows of the caches; a subgroup has one maximum ----
    for (var base = 0u; base < chunk.count; base += GROUPS * {{ keys }}u) {
      let now = ahead;
      if (base + GROUPS * {{ keys }}u < chunk.count) {
        ahead = load_rows(layer, chunk, base + GROUPS * {{ keys }}u, index);
      }
      {% for u in range(keys) %}
      let is_row{{ u }} = base + index / LANES + {{ u }}u * GROUPS < chunk.count;
      {% for v in range(vectors) %}
      let key{{ u }}_{{ v }} = cache_quad{{ v }}(now.key{{ u }});
      {% endfor %}
      {% for r in range(rows) %}
      var s{{ r }}_{{ u }} = {% for v in range(vectors) %}{{ " + " if v }}dot(q{{ r }}_{{ v }}, key{{ u }}_{{ v }}){% endfor %};
      {{ sum_of_lanes("s%d_%d" % (r, u)) | indent(6) -}}
      s{{ r }}_{{ u }} = select(LOWEST, s{{ r }}_{{ u }}, is_row{{ u }});
      {% endfor %}{% endfor %}
      {% for r in range(rows) %}
      var top{{ r }} = s{{ r }}_0;
      {% for u in range(1, keys) %}
      top{{ r }} = max(top{{ r }}, s{{ r }}_{{ u }});
      {% endfor %}
      {% for bit in exchanges if row_lanes <= bit < subgroup %}
      top{{ r }} = max(top{{ r }}, subgroupShuffleXor(top{{ r }}, {{ bit }}u));
      {% endfor %}{% endfor %}
      {% for r in range(rows) %}
      if (top{{ r }} > largest{{ r }} + RESCALE) {
        let factor = exp(max(largest{{ r }} - top{{ r }}, -100.0));
        largest{{ r }} = top{{ r }};
        total{{ r }} *= factor;
        {% for v in range(vectors) %}
        o{{ r }}_{{ v }} *= factor;
        {% endfor %}
      }
      {% for u in range(keys) %}
      s{{ r }}_{{ u }} = select(0.0, exp(s{{ r }}_{{ u }} - largest{{ r }}), is_row{{ u }});
      total{{ r }} += s{{ r }}_{{ u }};
      {% endfor %}{% endfor %}
      {% for u in range(keys) %}{% for v in range(vectors) %}
      let value{{ u }}_{{ v }} = cache_quad{{ v }}(now.value{{ u }});
      {% for r in range(rows) %}
      o{{ r }}_{{ v }} += s{{ r }}_{{ u }} * value{{ u }}_{{ v }};
      {% endfor %}{% endfor %}{% endfor %}
    }
    // ---- groups of a subgroup, and then subgroups ----
    {% for r in range(rows) %}
    {% for bit in exchanges if row_lanes <= bit < subgroup %}
    total{{ r }} += subgroupShuffleXor(total{{ r }}, {{ bit }}u);
    {% for v in range(vectors) %}
    o{{ r }}_{{ v }} += subgroupShuffleXor(o{{ r }}_{{ v }}, {{ bit }}u);
    {% endfor %}{% endfor %}{% endfor %}
    let part = index / SUBGROUP * ROWS;
    if (lane < LANES) {
      {% for r in range(rows) %}{% for v in range(vectors) %}
      shared_x[((ROWS + 2u + part + {{ r }}u) * HEAD_DIM + my_lane * {{ width }}u) / 4u + {{ v }}u] = bitcast<vec4<u32>>(o{{ r }}_{{ v }});
      {% endfor %}{% endfor %}
    }
    if (lane == 0u) {
      {% for r in range(rows) %}
      part_stats[part + {{ r }}u] = vec2<f32>(largest{{ r }}, total{{ r }});
      {% endfor %}
    }
    workgroupBarrier();
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
        sum += weight * bitcast<f32>(shared_x[j / 4u][j % 4u]);
      }
      if (most == 1u) {
        hand_over(ATTENDED + chunk.head * ROWS * HEAD_DIM + i, sum / total, tag);
      } else {
        hand_over(sums_at + i, sum, tag);
        if (i % HEAD_DIM == 0u) {
          hand_over(stats_at + 2u * row, largest, tag);
          hand_over(stats_at + 2u * row + 1u, total, tag);
        }
      }
    }
    if (most > 1u) {
      workgroupBarrier();
      merge(chunk, most, tag, index);
    }
  }
}

// A share of a head's elements, of all its chunks.
fn merge(chunk: Chunk, most: u32, tag: u32, index: u32) {
  let share = (ROWS * HEAD_DIM + chunk.splits - 1u) / chunk.splits;
  let begin = chunk.split * share;
  for (var i = begin + index; i < min(begin + share, ROWS * HEAD_DIM); i += SIZE) {
    let stats_at = STATS + (chunk.head * most * ROWS + i / HEAD_DIM) * 2u;
    let sums_at = STATS + (2u * KV_HEADS * most + chunk.head * most * HEAD_DIM) * ROWS + i;
    var largest = LOWEST;
    var total = 0.0;
    var sum = 0.0;
    for (var s = 0u; s < chunk.splits; s += {{ merged }}u) {
      {% for u in range(merged) %}
      let split{{ u }} = min(s + {{ u }}u, chunk.splits - 1u);
      let at{{ 3 * u }} = stats_at + split{{ u }} * ROWS * 2u;
      let at{{ 3 * u + 1 }} = at{{ 3 * u }} + 1u;
      let at{{ 3 * u + 2 }} = sums_at + split{{ u }} * ROWS * HEAD_DIM;
      var word{{ 3 * u }}: u32;
      var word{{ 3 * u + 1 }}: u32;
      var word{{ 3 * u + 2 }}: u32;
      {% endfor %}
      var missing: u32;
      {{ await("word", "at", 3 * merged) | indent(6) -}}
      var top = largest;
      {% for u in range(merged) %}
      top = max(top, value_of(word{{ 3 * u }}));
      {% endfor %}
      let before = exp(max(largest - top, -100.0));
      total *= before;
      sum *= before;
      largest = top;
      {% for u in range(merged) %}
      let weight{{ u }} = select(0.0, exp(max(value_of(word{{ 3 * u }}) - top, -100.0)), s + {{ u }}u < chunk.splits);
      total += weight{{ u }} * value_of(word{{ 3 * u + 1 }});
      sum += weight{{ u }} * value_of(word{{ 3 * u + 2 }});
      {% endfor %}
    }
    hand_over(ATTENDED + chunk.head * ROWS * HEAD_DIM + i, sum / total, tag);
  }
}
