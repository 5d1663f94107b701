{#
One row of x times packed weights of 4 bits, with x as whole numbers (bytes.wgsl). Its time is that of reading the weights.

A workgroup makes x whole numbers, as much as workgroup memory holds at a time, and takes turns with the others. A team of `lanes`
neighbouring invocations has two quads of columns in a turn, its lanes share K. As soon as a unit has been used, the one that will
take its place is asked for, so that almost a whole batch of `unroll` units is always on its way. packed.py says how weights lie.

Inputs:
  x_bytes = 3 | 2: of a whole number, with its sign
  unroll = 4 | 8: units of each quad that a lane loads at a time
  subgroup = 32 | 8: lanes of a subgroup; all have one size
  unit_group = 4 | 0: units that share a scale; 0: all of a row
  even = False | True: a row has whole batches of all lanes, so that no unit is past its end
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
{% set fours = False %}
{% set mins = scales == "float16_and_min" %}
{% set quads = 1 if gated else 2 %}
{% set shared = unit_group or 2**20 %}
// Bindings 0 and 6: x and the weights of the norm; 1 and 2: weights and scales; 3 to 5, 7 and 8: outputs, bias, residual.
{% include "matmul/input.wgsl" %}
{% include "matmul/weights.wgsl" %}
{% include "matmul/bytes.wgsl" %}
{% include "matmul/own_sum.wgsl" %}
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
override lanes: u32 = 32;     // of a team; wg_size is a multiple, and this one of a subgroup
override chunk: u32 = 1024;   // units of x in workgroup memory: all, or a multiple of unroll * lanes

const SUBGROUP = {{ subgroup }}u;
const UNIT_GROUP = {{ shared }}u;

var<workgroup> x_high: array<vec4<u32>, chunk>;
var<workgroup> x_low: array<{{ "vec4" if x_bytes == 3 else "vec2" }}<u32>, chunk>;
var<workgroup> partials: array<f32, 8u * (wg_size / SUBGROUP)>;
{% if norm %}
var<workgroup> squares: array<f32, wg_size / SUBGROUP>;
{% endif %}

struct Place {  // of a batch, for an invocation
  quad0: u32,
  quad1: u32,
  unit: u32,
}

fn place_of(tile: u32, unit: u32, index: u32) -> Place {
  let quad = 2u * (tile * (wg_size / lanes) + index / lanes);
  return Place(min(quad, params.quads - 1u), min(quad + 1u, params.quads - 1u), unit + index % lanes);
}

fn weights_of(quad: u32, unit: u32) -> vec4<u32> {
  return weights[quad * params.units + {{ "unit" if even else "min(unit, params.units - 1u)" }}];
}

fn scales_of(quad: u32, unit: u32) -> FourScales {
  return scales[quad * params.groups + {{ "unit / UNIT_GROUP" if even else "min(unit / UNIT_GROUP, params.groups - 1u)" }}];
}

// x from `begin` on, to workgroup memory. Returns the sum of its squares that this invocation has seen.
fn stage(begin: u32, index: u32) -> f32 {
  var square = 0.0;
  for (var i = index; i < min(chunk, params.units - begin); i += wg_size) {
    let k = 8u * (begin + i);
    var x0 = load_x(0u, k, params.k);
    var x1 = load_x(0u, k + 4u, params.k);
    {% if norm %}
    square += dot(x0, x0) + dot(x1, x1);
    x0 *= load_norm_weight(k, params.k);
    x1 *= load_norm_weight(k + 4u, params.k);
    {% endif %}
    let whole = whole_of(x0, x1);
    x_high[i] = whole.high;
    x_low[i] = whole.low;
  }
  return square;
}
{% if norm %}

fn norm_factor() -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < wg_size / SUBGROUP; i++) {
    sum += squares[i];
  }
  return 1.0 / sqrt(sum / f32(params.k) + params.eps);
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let teams = wg_size / lanes;
  let step = {{ unroll }}u * lanes;
  let first_tile = group.x + group.y * groups.x;
  let tiles = groups.x * groups.y;  // of all workgroups in a turn
  let first = place_of(first_tile, 0u, index);
  {% for i in range(unroll) %}
  {% for u in range(2) %}
  var w{{ 2 * i + u }} = weights_of(first.quad{{ u }}, first.unit + {{ i }}u * lanes);
  var s{{ 2 * i + u }} = scales_of(first.quad{{ u }}, first.unit + {{ i }}u * lanes);
  {% endfor %}{% endfor %}
  {% if norm %}
  var square = 0.0;
  var factor = 0.0;
  {% endif %}
  for (var tile = first_tile; tile < params.column_tiles; tile += tiles) {
    // ---- the element that this invocation stores, if it has one: of two quads, or of one of gate and one of up ----
    let slot = tile * teams + index / lanes;
    let number = lane / LANES_OF_SUM;
    let quad = slot{{ "" if gated else " * 2u + number / 4u" }};
    let c = number % 4u;
    let is_own = lane % LANES_OF_SUM == 0u && index % lanes < SUBGROUP{{ " && number < 4u" if gated }};
    let has_one = is_own && quad < params.ends[{{ outputs - 1 }}];
    {% if residual %}
    let ahead = residual_of(0u, quad, c, params.widths);  // loaded while the weights are
    {% endif %}
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    for (var unit = 0u; unit < params.units; unit += step) {
      if (unit % chunk == 0u && (tile == first_tile || params.units > chunk)) {
        workgroupBarrier();
        {% if norm %}
        let of_chunk = stage(unit, index);
        square += select(0.0, of_chunk, tile == first_tile);
        if (tile == first_tile && unit + chunk >= params.units) {
          let of_subgroup = subgroupAdd(square);
          if (lane == 0u) {
            squares[index / SUBGROUP] = of_subgroup;
          }
        }
        {% else %}
        stage(unit, index);
        {% endif %}
        workgroupBarrier();
      }
      // After the last turn its beginning is loaded again, from a cache: to ask first whether there is another one costs more.
      let ends = unit + step >= params.units;
      let goes_on = ends && tile + tiles < params.column_tiles;
      let next = place_of(select(tile, tile + tiles, goes_on), select(unit + step, 0u, ends), index);
      let my_unit = unit + index % lanes;
      let begin = unit - unit % chunk;  // what workgroup memory has from there on
      {% for i in range(unroll) %}
      {
        let at = my_unit + {{ i }}u * lanes;
        {{ "{" if even else "if (at < params.units) {" }}
          let whole = Whole(x_high[at - begin], x_low[at - begin]);
          {% for u in range(2) %}
          sum{{ u }} = fma(four_scales(s{{ 2 * i + u }}), products_of(w{{ 2 * i + u }}, whole), sum{{ u }}{% if mins %} + four_mins(s{{ 2 * i + u }}) * sum_of(whole){% endif %});
          {% endfor %}
        }
        {% for u in range(2) %}
        w{{ 2 * i + u }} = weights_of(next.quad{{ u }}, next.unit + {{ i }}u * lanes);
        s{{ 2 * i + u }} = scales_of(next.quad{{ u }}, next.unit + {{ i }}u * lanes);
        {% endfor %}
      }
      {% endfor %}
    }
    // ---- all lanes of a team ----
    var value = own_sum(sum0, sum1, lane);
    if (lanes > SUBGROUP) {
      workgroupBarrier();
      partials[index / SUBGROUP * 8u + number] = value;
      workgroupBarrier();
      value = 0.0;
      for (var p = 0u; p < lanes / SUBGROUP; p++) {
        value += partials[(index / lanes * (lanes / SUBGROUP) + p) * 8u + number];
      }
    }
    {% if norm %}
    if (tile == first_tile) {
      factor = norm_factor();
    }
    value *= factor;
    {% endif %}
    {% if gated %}
    let other = subgroupShuffleXor(value, {{ subgroup // 2 }}u);
    {% endif %}
    if (has_one) {
      {% if gated %}
      let result = silu(with_bias(value, slot * 8u + c)) * with_bias(other, slot * 8u + 4u + c);
      {% else %}
      let result = with_bias(value, quad * 4u + c);
      {% endif %}
      write(0u, quad, c, result{{ " + ahead" if residual }}, params.ends, params.widths);
    }
  }
}
