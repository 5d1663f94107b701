{#
Rotates the queries into a tensor and the keys straight into their cache, and copies the values into theirs.

Rows are heads of D elements: those of q for all tokens, then those of k, then those of v. A step's rows are contiguous
in source and cache, unless they lie in pages. With float caches an invocation makes four elements, with int8 caches a
workgroup makes a row.

Inputs:
  rotation = "halves" | "pairs": which elements turn together, those `half` apart or neighbours
  cache = "int8" | "float16" | "float32": what an element of the caches is
  made = "qkv" | "qk" | "q" | "k": queries, keys, values: what is made
  paged = False | True: every token has a place of its own, in pages
#}
{% set width = 4 %}
{% include "wgsl/kv_cache.wgsl" %}
{% include "wgsl/rotation.wgsl" %}
{% if cache == "int8" %}
{% include "wgsl/maximum.wgsl" %}
{% include "wgsl/workgroup_reduce.wgsl" %}
{% else %}
{% include "wgsl/linear_index.wgsl" %}
override wg_size: u32 = 64;
{% endif %}
{% if paged and made != "q" %}
{% include "wgsl/pages.wgsl" %}
{% endif %}

@group(0) @binding(2) var<storage, read> cos_table: array<f32>;              // [rows, half]; with halves twice as wide
@group(0) @binding(3) var<storage, read> sin_table: array<f32>;
{% if "q" in made %}
@group(0) @binding(0) var<storage, read> q: array<f32>;                      // [S, Hq, D]
@group(0) @binding(4) var<storage, read_write> rotated_q: array<vec4<f32>>;  // like q
{% endif %}
{% if "k" in made %}
@group(0) @binding(1) var<storage, read> k: array<f32>;                      // [S, Hkv, D]
@group(0) @binding(9) var<storage, read_write> k_cache: array<CacheFour>;    // [Cmax, Hkv, D]
{% if cache == "int8" %}
@group(0) @binding(10) var<storage, read_write> k_scales: array<f32>;        // [Cmax, Hkv]
{% endif %}{% endif %}
{% if "v" in made %}
@group(0) @binding(5) var<storage, read> v: array<vec4<f32>>;                // [S, Hkv, D]
@group(0) @binding(11) var<storage, read_write> v_cache: array<CacheFour>;
{% if cache == "int8" %}
@group(0) @binding(12) var<storage, read_write> v_scales: array<f32>;
{% endif %}{% endif %}

struct Params {
  rows: u32,
  tokens: u32,
  q_heads: u32,
  kv_heads: u32,
  vectors: u32,  // D / 4
  half: u32,     // pairs in a head
{% if paged %}
  table_width: u32,  // pages that a sequence may have
  page_shift: u32,
{% endif %}
}
@group(0) @binding(6) var<uniform> params: Params;
{% if paged %}
@group(0) @binding(7) var<storage, read> places: array<vec2<i32>>;  // [S]: position, sequence
{% else %}
{% if made != "q" %}
@group(0) @binding(7) var<uniform> input_pos: i32;  // the row of the caches that the first token gets
{% endif %}
@group(0) @binding(8) var<uniform> start_pos: i32;  // the row of the tables that the first token takes
{% endif %}

// The row of the tables that a token takes.
fn angle_row(token: u32) -> u32 {
  return {{ "u32(places[token].x)" if paged else "u32(start_pos) + token" }};
}

{% if made != "q" %}
// The row and head of a cache that a row of k or v gets.
fn cache_row(kv_row: u32) -> u32 {
  let token = kv_row / params.kv_heads;
  {% if paged %}
  let row = pool_row(u32(places[token].y) * params.table_width, u32(places[token].x), params.page_shift);
  {% else %}
  let row = u32(input_pos) + token;
  {% endif %}
  return row * params.kv_heads + kv_row % params.kv_heads;
}

{% endif %}

// ---- rotation: vec4 `vector` of a head of q or k ----
{% for x in ("q", "k") if x in made %}
{% if rotation == "halves" %}
fn {{ x }}_element(at: u32, e: u32, token: u32) -> f32 {
  let own = {{ x }}[at + e];
  if (e >= 2u * params.half) {
    return own;
  }
  let angle = angle_row(token) * 2u * params.half + e;
  let other = {{ x }}[at + partner(e, params.half)] * partner_sign(e, params.half);
  return own * cos_table[angle] + other * sin_table[angle];
}

fn rotate_{{ x }}(head: u32, vector: u32, token: u32) -> vec4<f32> {
  let at = head * 4u * params.vectors;
  let e = 4u * vector;
  return vec4<f32>(
    {{ x }}_element(at, e, token), {{ x }}_element(at, e + 1u, token),
    {{ x }}_element(at, e + 2u, token), {{ x }}_element(at, e + 3u, token),
  );
}

{% else %}
fn {{ x }}_pair(at: u32, angle: u32) -> vec2<f32> {
  let pair = vec2<f32>({{ x }}[at], {{ x }}[at + 1u]);
  return rotated_pair(pair, vec2<f32>(cos_table[angle]), vec2<f32>(sin_table[angle]));
}

fn rotate_{{ x }}(head: u32, vector: u32, token: u32) -> vec4<f32> {
  let at = (head * params.vectors + vector) * 4u;
  let angle = angle_row(token) * params.half + 2u * vector;
  return vec4<f32>({{ x }}_pair(at, angle), {{ x }}_pair(at + 2u, angle + 1u));
}

{% endif %}
{% endfor %}
// ---- rows of q, k and v, one after the other ----
fn q_rows() -> u32 {
  return {{ "params.tokens * params.q_heads" if "q" in made else "0u" }};
}

fn is_value(kv_row: u32) -> bool {
  return kv_row >= params.tokens * params.kv_heads;
}

// Four elements of a row.
fn elements(row: u32, vector: u32) -> vec4<f32> {
  {% if "q" in made %}
  if (row < q_rows()) {
    return rotate_q(row, vector, row / params.q_heads);
  }
  {% endif %}
  {% if "v" in made %}
  if (is_value(row - q_rows())) {
    return v[(row - q_rows() - params.tokens * params.kv_heads) * params.vectors + vector];
  }
  {% endif %}
  {% if "k" in made %}
  return rotate_k(row - q_rows(), vector, (row - q_rows()) / params.kv_heads);
  {% else %}
  return vec4<f32>();
  {% endif %}
}

// Puts four elements where they belong, over the divisor of their row.
fn put(row: u32, vector: u32, value: vec4<f32>, divisor: f32) {
  {% if "q" in made %}
  if (row < q_rows()) {
    rotated_q[row * params.vectors + vector] = value;
    return;
  }
  {% endif %}
  {% if made != "q" %}
  let kv_row = row - q_rows();
  let four = stored({{ "value / divisor" if cache == "int8" else "value" }});
  {% if "v" in made %}
  if (is_value(kv_row)) {
    v_cache[cache_row(kv_row - params.tokens * params.kv_heads) * params.vectors + vector] = four;
    return;
  }
  {% endif %}
  k_cache[cache_row(kv_row) * params.vectors + vector] = four;
  {% endif %}
}

{% if cache == "int8" %}
// ---- a workgroup a row ----
@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  {% if "q" in made %}
  if (row < q_rows()) {
    for (var i = lane; i < params.vectors; i += wg_size) {
      put(row, i, elements(row, i), 1.0);
    }
    return;
  }
  {% endif %}
  var largest = 0.0;
  for (var i = lane; i < params.vectors; i += wg_size) {
    largest = max(largest, largest_of(elements(row, i)));
  }
  let scale = int8_scale(workgroup_max(largest, lane));
  for (var i = lane; i < params.vectors; i += wg_size) {
    put(row, i, elements(row, i), int8_divisor(scale));
  }
  {% if made != "q" %}
  if (lane == 0u) {
    let kv_row = row - q_rows();
    {% if "v" in made %}
    if (is_value(kv_row)) {
      v_scales[cache_row(kv_row - params.tokens * params.kv_heads)] = scale;
      return;
    }
    {% endif %}
    k_scales[cache_row(kv_row)] = scale;
  }
  {% endif %}
}
{% else %}
// ---- an invocation four elements ----
@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i < params.rows * params.vectors) {
    let row = i / params.vectors;
    put(row, i % params.vectors, elements(row, i % params.vectors), 1.0);
  }
}
{% endif %}
