{% set halves = rotation == "halves" %}
// Rotary embedding of four elements of a head. A pair is {{ "half of what is rotated apart" if halves else "two neighbours" }}.
@group(0) @binding(10) var<storage, read> k: array<vec4<f32>>;  // [S, Hkv, D], not rotated, like q
@group(0) @binding(11) var<storage, read> v: array<vec4<f32>>;
{% if halves %}
@group(0) @binding(12) var<storage, read> cos_table: array<vec4<f32>>;  // [rows, 8 * half_vectors]
@group(0) @binding(13) var<storage, read> sin_table: array<vec4<f32>>;
{% else %}
@group(0) @binding(12) var<storage, read> cos_table: array<vec2<f32>>;  // [rows, D / 2]
@group(0) @binding(13) var<storage, read> sin_table: array<vec2<f32>>;
{% endif %}
@group(0) @binding(14) var<storage, read_write> turned: array<vec4<f32>>;  // [S, Hq, D], the rotated q
@group(0) @binding(15) var<uniform> start_pos: i32;  // the row of the tables that the first token takes

{% for x in ("q", "k") %}
// Vector i of the head of {{ x }} that begins at vector `at`.
fn rotated_{{ x }}(at: u32, i: u32, token: u32) -> vec4<f32> {
  let own = {{ x }}[at + i];
  let row = u32(start_pos) + token;
  {% if halves %}
  let half = params.half_vectors;
  if (i >= 2u * half) {
    return own;
  }
  let angle = row * 2u * half + i;
  let other = {{ x }}[at + select(i - half, i + half, i < half)] * select(1.0, -1.0, i < half);
  return own * cos_table[angle] + other * sin_table[angle];
  {% else %}
  let angle = row * {{ units * quads }}u + i;
  let other = vec4<f32>(-own.y, own.x, -own.w, own.z);
  return own * cos_table[angle].xxyy + other * sin_table[angle].xxyy;
  {% endif %}
}

{% endfor %}
