{#
One row of x times packed weights of 4 bits, with x as whole numbers (bytes.wgsl). Its time is that of reading the weights.

A workgroup makes all of x whole numbers, once, and then takes turns with the others. A team of `lanes` neighbouring invocations
has two quads of columns in a turn, its lanes share K. While a batch of units is used, the next one is on its way. packed.py
says how weights lie.

Inputs:
  unroll = 4 | 8: units of each quad that a lane loads at a time
  subgroup = 32 | 8: of a subgroup; all have one size
  unit_group = 4 | 0: units that share a scale; 0: all of a row
  of_set = 8 | 1: at least the groups of the units of a subgroup that lie side by side, a power of two
  bits = 4: of a weight's code
  zero_point = 8 | 0: what is subtracted from each code
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  group_shift = True | False: see weights.wgsl
  vec4_x = True: K is a multiple of 4
  guarded = False: no load of x passes the end of the row
  norm = False | True: RMSNorm of x comes first
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether a bias is added
  residual = False | True: whether a residual is added to the one output
#}
{% set mins = scales == "float16_and_min" %}
{% set quads = 1 if gated else 2 %}
{% set shared = unit_group or 2**20 %}
{% set scale_loads = (unroll * of_set + subgroup - 1) // subgroup %}
// Bindings 0 and 6: x and the weights of the norm; 1 and 2: weights and scales; 3 to 5, 7 and 8: outputs, bias, residual.
{% include "matmul/input.wgsl" %}
{% include "matmul/weights.wgsl" %}
{% include "matmul/bytes.wgsl" %}
{% include "matmul/output.wgsl" %}

struct Params {
  m: u32,             // 1
  k: u32,
  units: u32,         // vec4s along a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // turns of a workgroup that had no others
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% if norm %}
  eps: f32,
{% endif %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

override wg_size: u32 = 256;
override lanes: u32 = 32;         // of a team; wg_size is a multiple, and this one of a subgroup
override most_units: u32 = 1024;  // of x, at least those that there are

const SUBGROUP = {{ subgroup }}u;
const UNIT_GROUP = {{ shared }}u;
const OF_SET = {{ of_set }}u;

var<workgroup> x_high: array<vec4<u32>, most_units>;
var<workgroup> x_low: array<vec4<u32>, most_units>;
var<workgroup> partials: array<vec4<f32>, 2u * (wg_size / SUBGROUP)>;
{% if norm %}
var<workgroup> squares: array<f32, wg_size / SUBGROUP>;
{% endif %}

struct Batch {
  {% for i in range(2 * unroll) %}
  w{{ i }}: vec4<u32>,
  {% endfor %}
  {% for i in range(2 * scale_loads) %}
  s{{ i }}: FourScales,
  {% endfor %}
}

fn load_batch(tile: u32, unit: u32, index: u32, lane: u32) -> Batch {
  var batch: Batch;
  let first_quad = 2u * (tile * (wg_size / lanes) + index / lanes);
  let quad0 = min(first_quad, params.quads - 1u);
  let quad1 = min(first_quad + 1u, params.quads - 1u);
  let first = unit + index % lanes;
  {% for i in range(unroll) %}
  let unit{{ i }} = min(first + {{ i }}u * lanes, params.units - 1u);
  batch.w{{ 2 * i }} = weights[quad0 * params.units + unit{{ i }}];
  batch.w{{ 2 * i + 1 }} = weights[quad1 * params.units + unit{{ i }}];
  {% endfor %}
  // ---- a scale that some units share is loaded by one lane ----
  {% for i in range(scale_loads) %}
  {% set place = "(lane + %du)" % (i * subgroup) if i else "lane" %}
  let group{{ i }} = min((first - lane + {{ place }} / OF_SET * lanes) / UNIT_GROUP + {{ place }} % OF_SET, params.groups - 1u);
  batch.s{{ 2 * i }} = scales[quad0 * params.groups + group{{ i }}];
  batch.s{{ 2 * i + 1 }} = scales[quad1 * params.groups + group{{ i }}];
  {% endfor %}
  return batch;
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let teams = wg_size / lanes;
  let first_tile = group.x + group.y * groups.x;
  let tiles = groups.x * groups.y;  // of all workgroups in a turn
  var batch = load_batch(first_tile, 0u, index, lane);
  {% if norm %}
  var square = 0.0;
  {% endif %}
  for (var unit = index; unit < params.units; unit += wg_size) {
    var x0 = load_x(0u, 8u * unit, params.k);
    var x1 = load_x(0u, 8u * unit + 4u, params.k);
    {% if norm %}
    square += dot(x0, x0) + dot(x1, x1);
    x0 *= load_norm_weight(8u * unit, params.k);
    x1 *= load_norm_weight(8u * unit + 4u, params.k);
    {% endif %}
    let whole = whole_of(x0, x1);
    x_high[unit] = whole.high;
    x_low[unit] = whole.low;
  }
  {% if norm %}
  let of_subgroup = subgroupAdd(square);
  if (lane == 0u) {
    squares[index / SUBGROUP] = of_subgroup;
  }
  {% endif %}
  workgroupBarrier();
  {% if norm %}
  var squares_of_all = 0.0;
  for (var i = 0u; i < wg_size / SUBGROUP; i++) {
    squares_of_all += squares[i];
  }
  let factor = 1.0 / sqrt(squares_of_all / f32(params.k) + params.eps);
  {% endif %}
  for (var tile = first_tile; tile < params.column_tiles; tile += tiles) {
    // ---- the element that this invocation stores, if it has one: of two quads, or of one of gate and one of up ----
    let slot = tile * teams + index / {{ 4 * quads }}u;
    let quad = slot * {{ quads }}u + index / 4u % {{ quads }}u;
    let c = index % 4u;
    let has_one = index < {{ 4 * quads }}u * teams && quad < params.ends[{{ outputs - 1 }}];
    {% if residual %}
    let ahead = residual_of(0u, quad, c, params.widths);  // loaded while the weights are
    {% endif %}
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    for (var unit = 0u; unit < params.units; unit += {{ unroll }}u * lanes) {
      let now = batch;
      let ends = unit + {{ unroll }}u * lanes >= params.units;
      let next_tile = select(tile, tile + tiles, ends);
      if (next_tile < params.column_tiles) {
        batch = load_batch(next_tile, select(unit + {{ unroll }}u * lanes, 0u, ends), index, lane);
      }
      let first = unit + index % lanes;
      {% for i in range(unroll) %}
      {
        {% set within = i * of_set %}
        let set_begin = first - lane + {{ i }}u * lanes;
        let from_lane = {{ within % subgroup }}u + (set_begin + lane) / UNIT_GROUP - set_begin / UNIT_GROUP;
        {% for u in range(2) %}
        let packed{{ u }} = subgroupShuffle(now.s{{ 2 * (within // subgroup) + u }}, from_lane);
        {% endfor %}
        let at = first + {{ i }}u * lanes;
        if (at < params.units) {
          let whole = Whole(x_high[at], x_low[at]);
          {% for u in range(2) %}
          sum{{ u }} += four_scales(packed{{ u }}) * products_of(now.w{{ 2 * i + u }}, whole){% if mins %} + four_mins(packed{{ u }}) * sum_of(whole){% endif %};
          {% endfor %}
        }
      }
      {% endfor %}
    }
    // ---- all lanes of a team ----
    sum0 = subgroupAdd(sum0);
    sum1 = subgroupAdd(sum1);
    workgroupBarrier();
    if (lane == 0u) {
      partials[index / SUBGROUP * 2u] = sum0;
      partials[index / SUBGROUP * 2u + 1u] = sum1;
    }
    workgroupBarrier();
    if (has_one) {
      let parts = lanes / SUBGROUP;
      {% if gated %}
      let part = index / 4u * parts * 2u;
      {% else %}
      let part = index / 8u * parts * 2u + index / 4u % 2u;
      {% endif %}
      var value = 0.0;
      {% if gated %}
      var other = 0.0;
      {% endif %}
      for (var p = 0u; p < parts; p++) {
        value += partials[part + 2u * p][c];
        {% if gated %}
        other += partials[part + 2u * p + 1u][c];
        {% endif %}
      }
      {% if norm %}
      value *= factor;
      {% if gated %}
      other *= factor;
      {% endif %}
      {% endif %}
      {% if gated %}
      let result = silu(with_bias(value, slot * 8u + c)) * with_bias(other, slot * 8u + 4u + c);
      {% else %}
      let result = with_bias(value, quad * 4u + c);
      {% endif %}
      write(0u, quad, c, result{{ " + ahead" if residual }}, params.ends, params.widths);
    }
  }
}
