// Streaming attention on tensor cores: Q K^T and P V by subgroup matrices of 16 x 16, sums in float32.
//
// A workgroup computes {{ 16 * subgroups }} packed rows (token * group + head in the group) of one KV head, a subgroup 16
// of them, and two lanes the softmax of a row. Scores are as exact as float32 sums: Q is the sum of two float16 matrices,
// q and rest, and the cache is float16. Matrices cannot be read by element, so scores go to workgroup memory and come
// back as probabilities in float16. The sums are scaled again only when a row's maximum has grown by more than RESCALE.
{% set lanes = 32 * subgroups %}
{% set dims = head_dim // 16 %}
{% set words = head_dim // 8 %}
{% set quads = keys // 8 %}
{% set loads = (keys * words + lanes - 1) // lanes %}
{# Rows in workgroup memory are 16 bytes longer than they must be, so that those of a column lie in several banks. #}
{% set kv_row = words + 1 %}
{% set s_row = keys // 4 + 1 %}
{% set p_row = keys // 4 + 2 %}
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;        // [S, Hq, D]
@group(0) @binding(1) var<storage, read> k_cache: array<vec4<u32>>;  // [Cmax, Hkv, D] float16
@group(0) @binding(2) var<storage, read> v_cache: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;  // [S, Hq, D]

struct Params {
  row_count: u32,  // packed rows: S * group
  group_size: u32,
  kv_heads: u32,
  tokens: u32,
  scale: f32,      // of the scores, times log2(e)
}
@group(0) @binding(4) var<uniform> params: Params;
@group(0) @binding(5) var<uniform> input_pos: i32;

const LOWEST = -3.0e38;
const RESCALE = 8.0;  // probabilities stay below 2^8
const V_TILE = {{ keys * kv_row }}u;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Every variable is a multiple of 16 bytes: the driver lays them out one behind the other.
// kv: [{{ keys }}, {{ 8 * kv_row }}] of K, then of V; before the loop it holds rows of Q.
var<workgroup> kv: array<vec4<u32>, {{ 2 * keys * kv_row }}>;
var<workgroup> probabilities: array<vec4<f16>, {{ 16 * subgroups * p_row }}>;
var<workgroup> scores: array<vec4<f32>, {{ 16 * subgroups * s_row }}>;
var<workgroup> grown: array<atomic<u32>, 4>;

fn halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(
    pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)
  );
}

// The upper 11 bits of each number, which float16 can hold. (Converting there and back is undone by a compiler.)
fn upper(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}

@compute @workgroup_size({{ lanes }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let kv_head = group.y;
  // The last rows see the most keys: begin with them.
  let first_row = (groups.x - 1u - group.x) * {{ 16 * subgroups }}u;
  let last_row = min(first_row + {{ 16 * subgroups - 1 }}u, params.row_count - 1u);
  let position = u32(input_pos);
  let context = position + params.tokens;                      // rows of the cache that hold something
  let columns = position + last_row / params.group_size + 1u;  // that the last row sees
  let heads = params.kv_heads * params.group_size;

  {% for d in range(dims) %}
  var q{{ d }}: Left;
  var rest{{ d }}: Left;
  var o{{ d }} = Sum(0.0);
  {% endfor %}
  {% include "sdpa/flash_matrix_queries.wgsl" %}

  // A lane has half of a row of scores.
  let row = subgroup * 16u + lane % 16u;
  let first_column = lane / 16u * {{ keys // 2 }}u;
  let quad_columns = vec4<u32>(first_column) + vec4<u32>(0u, 1u, 2u, 3u);
  let packed_row = min(first_row + row, params.row_count - 1u);
  let visible = position + packed_row / params.group_size + 1u;
  let my_scores = row * {{ s_row }}u + first_column / 4u;
  let my_probabilities = row * {{ p_row }}u + first_column / 4u;
  let s_slice = subgroup * {{ 16 * s_row }}u;
  let p_slice = subgroup * {{ 16 * p_row }}u;
  var largest = LOWEST;
  var total = 0.0;

  let cache_row = params.kv_heads * {{ words }}u;
  let cache_head = kv_head * {{ words }}u;
  {% for i in range(loads) %}
  let word{{ i }} = cache_head + (index + {{ i * lanes }}u) % {{ words }}u;
  var k{{ i }} = k_cache[min((index + {{ i * lanes }}u) / {{ words }}u, context - 1u) * cache_row + word{{ i }}];
  var v{{ i }} = v_cache[min((index + {{ i * lanes }}u) / {{ words }}u, context - 1u) * cache_row + word{{ i }}];
  {% endfor %}
  for (var start = 0u; start < columns; start += {{ keys }}u) {
    {% for i in range(loads) %}
    {
      let row = (index + {{ i * lanes }}u) / {{ words }}u;
      let to = row * {{ kv_row }}u + (index + {{ i * lanes }}u) % {{ words }}u;
      let known = start + row < context;  // whatever the cache has behind, times zero it must be zero
      {% if (i + 1) * lanes > keys * words %}
      if (row < {{ keys }}u) {
      {% endif %}
      kv[to] = select(vec4<u32>(), k{{ i }}, known);
      kv[V_TILE + to] = select(vec4<u32>(), v{{ i }}, known);
      {% if (i + 1) * lanes > keys * words %}
      }
      {% endif %}
      // The next tile's, while this one is computed.
      k{{ i }} = k_cache[min(start + {{ keys }}u + row, context - 1u) * cache_row + word{{ i }}];
      v{{ i }} = v_cache[min(start + {{ keys }}u + row, context - 1u) * cache_row + word{{ i }}];
    }
    {% endfor %}
    if (index == 0u) {
      atomicStore(&grown[0], 0u);
    }
    workgroupBarrier();

    {% for n in range(0, keys, 16) %}
    {
      var s = Sum(0.0);
      {% for d in range(dims) %}
      {
        let key = subgroupMatrixLoad<Right, col_major>(&kv, {{ n * kv_row + 2 * d }}u, {{ kv_row }}u);
        s = subgroupMatrixMultiplyAccumulate(q{{ d }}, key, s);
        s = subgroupMatrixMultiplyAccumulate(rest{{ d }}, key, s);
      }
      {% endfor %}
      subgroupMatrixStore<row_major>(&scores, s_slice + {{ n // 4 }}u, s, {{ s_row }}u);
    }
    {% endfor %}
    workgroupBarrier();

    {% include "sdpa/flash_matrix_softmax.wgsl" %}
    workgroupBarrier();

    if (workgroupUniformLoad(&grown[0]) != 0u) {
      // Through the memory of the scores, 16 dims at a time, a row a lane of the first 16.
      {% for d in range(dims) %}
      subgroupMatrixStore<row_major>(&scores, s_slice, o{{ d }}, {{ s_row }}u);
      workgroupBarrier();
      for (var j = 0u; lane < 16u && j < 4u; j++) {
        scores[row * {{ s_row }}u + j] *= factor;
      }
      workgroupBarrier();
      o{{ d }} = subgroupMatrixLoad<Sum, row_major>(&scores, s_slice, {{ s_row }}u);
      workgroupBarrier();
      {% endfor %}
    }

    {% for n in range(0, keys, 16) %}
    {
      let p = subgroupMatrixLoad<Left, row_major>(&probabilities, p_slice + {{ n // 4 }}u, {{ p_row }}u);
      {% for d in range(dims) %}
      {
        let value = subgroupMatrixLoad<Right, row_major>(&kv, V_TILE + {{ n * kv_row + 2 * d }}u, {{ kv_row }}u);
        o{{ d }} = subgroupMatrixMultiplyAccumulate(p, value, o{{ d }});
      }
      {% endfor %}
    }
    {% endfor %}
    workgroupBarrier();
  }

  let inverse = 1.0 / (total + subgroupShuffleXor(total, 16u));
  let head = kv_head * params.group_size + packed_row % params.group_size;
  let to = (packed_row / params.group_size * heads + head) * {{ 2 * words }}u;
  {% for d in range(dims) %}
  subgroupMatrixStore<row_major>(&scores, s_slice, o{{ d }}, {{ s_row }}u);
  workgroupBarrier();
  for (var j = 0u; lane < 16u && first_row + row < params.row_count && j < 4u; j++) {
    out[to + {{ 4 * d }}u + j] = scores[row * {{ s_row }}u + j] * inverse;
  }
  workgroupBarrier();
  {% endfor %}
}
