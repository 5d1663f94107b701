{#
Many rows of x times packed weights, in float32.

A workgroup of 16 x 16 invocations computes a tile of 64 * row_quads rows and 16 * column_quads quads of columns, an
invocation 4 * row_quads rows of column_quads quads, a step along K at a time. The next step's x and weights are on the way
while this one's are multiplied. packed.py says how weights lie.

Inputs:
  row_quads = 2 | 1: fours of rows of an invocation
  column_quads = 2 | 1: fours of columns of an invocation; 2 if gated
  depth = 16 | 8: of a step along K
  bits = 4 | 8 | 16 | 32: of a weight; 4 and 8 are those of codes, 16 and 32 of floats
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min" | None: see scales.wgsl; floats have none
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  vec4_x = True | False: K is a multiple of 4
  guarded = False | True: the last step may pass the end of a row
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether it is added
  residual = False | True: whether it is added to the one output
#}
{% set quantized = bits <= 8 %}
{% set mins = scales == "float16_and_min" %}
{% set per_unit = 8 if bits == 4 else 4 %}
{% set norm = False %}
// Bindings 0: x; 1 and 2: weights and scales; 3 to 5, 7 and 8: outputs, bias and residual.
{% include "matmul/input.wgsl" %}
{% include "matmul/weights.wgsl" %}
{% include "matmul/output.wgsl" %}

struct Params {
  m: u32,
  k: u32,
  units: u32,         // vec4s along a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
{% if quantized %}
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% else %}
  last: u32,          // row of weights
{% endif %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

const DEPTH = {{ depth }}u;
const PER_UNIT = {{ per_unit }}u;  // weights of a row
const X_QUADS = {{ 16 * row_quads }}u;     // fours of rows of the tile
const W_QUADS = {{ 16 * column_quads }}u;  // fours of columns
const COLUMN_QUADS = {{ column_quads }}u;
const X_DEPTH = DEPTH / 4u;        // vec4s of x, and
const W_DEPTH = DEPTH / PER_UNIT;  // units of weights, along a step

var<workgroup> x_tile: array<vec4<f32>, DEPTH * X_QUADS>;  // [k, quads of rows]
var<workgroup> w_tile: array<vec4<f32>, DEPTH * W_QUADS>;  // [k, quads of columns]

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = group.x + group.y * groups.x;
  let tile_row = tile / params.column_tiles * (4u * X_QUADS);
  let tile_quad = tile % params.column_tiles * W_QUADS;
  if (tile_row >= params.m) {
    return;
  }

  // ---- who stages what: the first half of the invocations x, four rows of four k; the second weights, a unit of a quad ----
  // Rows and quads past the edge repeat the last one and are not stored.
  let stager = index % 128u;
  let stages_x = index < X_QUADS * X_DEPTH;
  let stages_w = index >= 128u && stager < W_QUADS * W_DEPTH;
  let x_k = stager % X_DEPTH * 4u;
  let x_quad = stager / X_DEPTH % X_QUADS;
  {% for r in range(4) %}
  let row{{ r }} = min(tile_row + x_quad * 4u + {{ r }}u, params.m - 1u);
  var x{{ r }} = vec4<f32>();
  {% endfor %}
  let w_unit = stager % W_DEPTH;
  let w_place = stager / W_DEPTH % W_QUADS;
  let w_quad = min(tile_quad + w_place, params.quads - 1u);
  {% if quantized %}
  let w_start = w_quad * params.units;
  let scale_start = w_quad * params.groups;
  var packed = vec4<u32>();
  var packed_scales = scales[scale_start];
  {% else %}
  let w_start = min(vec4<u32>(w_quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.last)) * params.units;
  {% for c in range(4) %}
  var w{{ c }} = vec4<f32>();
  {% endfor %}
  {% endif %}
  // The quads of an invocation are neighbours, but in the tile they lie 16 apart.
  let w_to = w_unit * (PER_UNIT * W_QUADS) + w_place % COLUMN_QUADS * 16u + w_place / COLUMN_QUADS;
  let x_to = x_k * X_QUADS + x_quad;

  {% for r in range(4 * row_quads) %}
  {% for j in range(column_quads) %}
  var sum{{ r }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  // ---- the step at `next` along K, on the way to registers ----
  var next = 0u;
  {% macro load() %}
  if (stages_x) {
    {% for r in range(4) %}
    x{{ r }} = load_x(row{{ r }}, next + x_k, params.k);
    {% endfor %}
  }
  if (stages_w) {
    let unit = min(next / PER_UNIT + w_unit, params.units - 1u);
    {% if quantized %}
    packed = weights[w_start + unit];
    packed_scales = scales[scale_start + group_of(unit, params.group)];
    {% else %}
    let inside = next / PER_UNIT + w_unit < params.units;
    {% for c in range(4) %}
    w{{ c }} = select(vec4<f32>(), load_weights(w_start[{{ c }}] + unit), inside);
    {% endfor %}
    {% endif %}
  }
  {% endmacro %}
  {{ load() }}
  while (next < params.k) {
    // ---- what was loaded, to workgroup memory ----
    if (stages_x) {
      {% for k in range(4) %}
      x_tile[x_to + {{ k }}u * X_QUADS] = vec4<f32>(x0[{{ k }}], x1[{{ k }}], x2[{{ k }}], x3[{{ k }}]);
      {% endfor %}
    }
    if (stages_w) {
      {% if quantized %}
      let scale = four_scales(packed_scales);
      {% if mins %}
      let least = four_mins(packed_scales);
      {% endif %}
      {% for k in range(per_unit) %}
      {% if mins %}
      w_tile[w_to + {{ k }}u * W_QUADS] = scale * codes_at(packed, {{ k }}u) + least;
      {% else %}
      w_tile[w_to + {{ k }}u * W_QUADS] = scale * codes_at(packed, {{ k }}u);
      {% endif %}
      {% endfor %}
      {% else %}
      {% for k in range(4) %}
      w_tile[w_to + {{ k }}u * W_QUADS] = vec4<f32>(w0[{{ k }}], w1[{{ k }}], w2[{{ k }}], w3[{{ k }}]);
      {% endfor %}
      {% endif %}
    }
    workgroupBarrier();
    next += DEPTH;
    if (next < params.k) {
      {{ load() | indent(4) }}
    }

    // ---- products of the step ----
    for (var k = 0u; k < DEPTH; k++) {
      {% for i in range(row_quads) %}
      let a{{ i }} = x_tile[k * X_QUADS + local.y + {{ 16 * i }}u];
      {% endfor %}
      {% for j in range(column_quads) %}
      let b{{ j }} = w_tile[k * W_QUADS + local.x + {{ 16 * j }}u];
      {% endfor %}
      {% for r in range(4 * row_quads) %}
      {% for j in range(column_quads) %}
      sum{{ r }}_{{ j }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ j }};
      {% endfor %}
      {% endfor %}
    }
    workgroupBarrier();
  }

  // ---- output ----
  let quad = tile_quad + local.x * COLUMN_QUADS;
  {% for r in range(4 * row_quads) %}
  {
    let row = tile_row + local.y * 4u + {{ r // 4 * 64 + r % 4 }}u;
    if (row < params.m) {
      {% for j in range(1 if gated else column_quads) %}
      if (quad + {{ j }}u < params.quads) {
        {% for c in range(4) %}
        {
          let column = (quad + {{ j }}u) * 4u + {{ c }}u;
          {% if gated %}
          let value = silu(with_bias(sum{{ r }}_0[{{ c }}], column)) * with_bias(sum{{ r }}_1[{{ c }}], column + 4u);
          store(row, quad / 2u, {{ c }}u, value, params.ends, params.widths);
          {% else %}
          store(row, quad + {{ j }}u, {{ c }}u, with_bias(sum{{ r }}_{{ j }}[{{ c }}], column), params.ends, params.widths);
          {% endif %}
        }
        {% endfor %}
      }
      {% endfor %}
    }
  }
  {% endfor %}
}
