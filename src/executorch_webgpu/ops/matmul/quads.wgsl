{#
Rows of x times packed quantized weights, for adapters that are CPUs. packed.py says how weights lie.

A workgroup is one subgroup, and a lane computes whole quads of columns of a few rows, alone. There, a load costs a dozen
instructions for each lane, and as much again for each further word: so every load is a vec4, lanes load different x, and
get those of the others by broadcasts, which cost one or two.

Inputs:
  lanes = 8 | 4 | 32: of a subgroup
  rows = 1 | 4 | 6: of a lane
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  vec4_x = True | False: K is a multiple of 4
  guarded = False | True: K is no multiple of 32
  norm = False | True: RMSNorm of x comes first
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether a bias is added
  residual = False | True: whether a residual is added to the one output
#}
{% set fours = False %}
{% set mins = scales == "float16_and_min" %}
{% set per_unit = 8 if bits == 4 else 4 %}
{% set units = 32 // per_unit %}
{% set quads = 2 if gated else 1 %}
{% set loaders = [lanes, 8] | min %}
{% set loads = 8 // loaders %}
// Bindings 0 and 6: x and the weights of the norm; 1 and 2: weights and scales; 3 to 5, 7 and 8: outputs, bias, residual.
{% include "matmul/input.wgsl" %}
{% include "matmul/weights.wgsl" %}
{% include "matmul/output.wgsl" %}

struct Params {
  m: u32,
  k: u32,
  units: u32,         // vec4s along a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% if norm %}
  eps: f32,
{% endif %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

const LANES = {{ lanes }}u;
const ROWS = {{ rows }}u;
const QUADS = {{ quads }}u;      // of a lane
const BLOCK = 32u;               // of K, at a time, of one group
const UNITS = {{ units }}u;      // of a block
const LOADERS = {{ loaders }}u;  // lanes that load different x of a block

// What all loaders have, together.
fn sum_of_loaders(part: f32) -> f32 {
  return {% for l in range(loaders) %}{{ " + " if l }}subgroupBroadcast(part, {{ l }}u){% endfor %};
}

@compute @workgroup_size({{ lanes }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let first_row = tile / params.column_tiles * ROWS;
  if (first_row >= params.m) {
    return;
  }
  let first_quad = (tile % params.column_tiles * LANES + lane) * QUADS;

  // ---- where rows and quads begin; those past the edge repeat the last one and are not stored ----
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + {{ r }}u, params.m - 1u);
  {% if norm %}
  var squares{{ r }} = 0.0;
  {% endif %}
  {% endfor %}
  {% for q in range(quads) %}
  let quad{{ q }} = min(first_quad + {{ q }}u, params.quads - 1u);
  let start{{ q }} = quad{{ q }} * params.units;
  let scale_start{{ q }} = quad{{ q }} * params.groups;
  {% for r in range(rows) %}
  var sum{{ r }}_{{ q }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  for (var block = 0u; block < (params.k + BLOCK - 1u) / BLOCK; block++) {
    // ---- x: each loader's vec4s, every LOADERS-th of the block ----
    {% for i in range(loads) %}
    let k{{ i }} = block * BLOCK + (lane % LOADERS + {{ i * loaders }}u) * 4u;
    {% if norm %}
    let norm{{ i }} = load_norm_weight(k{{ i }}, params.k);
    {% endif %}
    {% for r in range(rows) %}
    var x{{ r }}_{{ i }} = load_x(row{{ r }}, k{{ i }}, params.k);
    {% if norm %}
    squares{{ r }} += dot(x{{ r }}_{{ i }}, x{{ r }}_{{ i }});
    x{{ r }}_{{ i }} *= norm{{ i }};
    {% endif %}
    {% endfor %}
    {% endfor %}
    {% for r in range(rows) if mins %}
    let total{{ r }} = sum_of_loaders({% for i in range(loads) %}{{ " + " if i }}dot(x{{ r }}_{{ i }}, vec4<f32>(1.0)){% endfor %});
    {% endfor %}

    // ---- products of codes ----
    let first_unit = block * UNITS;
    {% for q in range(quads) %}
    let packed_scales{{ q }} = scales[scale_start{{ q }} + group_of(first_unit, params.group)];
    {% for r in range(rows) %}
    var dots{{ r }}_{{ q }} = vec4<f32>();
    {% endfor %}
    {% endfor %}
    {% for u in range(units) %}
    {
      {% if guarded %}
      let unit = min(first_unit + {{ u }}u, params.units - 1u);
      {% else %}
      let unit = first_unit + {{ u }}u;
      {% endif %}
      {% for q in range(quads) %}
      let words{{ q }} = weights[start{{ q }} + unit];
      {% endfor %}
      {% for k in range(per_unit) %}
      {
        {% set vector = (u * per_unit + k) // 4 %}
        {% for q in range(quads) %}
        let codes{{ q }} = converted_codes_at(words{{ q }}, {{ k }}u);
        {% endfor %}
        {% for r in range(rows) %}
        let x{{ r }} = subgroupBroadcast(x{{ r }}_{{ vector // loaders }}[{{ k % 4 }}], {{ vector % loaders }}u);
        {% for q in range(quads) %}
        dots{{ r }}_{{ q }} += codes{{ q }} * x{{ r }};
        {% endfor %}
        {% endfor %}
      }
      {% endfor %}
    }
    {% endfor %}
    {% for q in range(quads) %}
    {% for r in range(rows) %}
    sum{{ r }}_{{ q }} += four_scales(packed_scales{{ q }}) * dots{{ r }}_{{ q }};
    {% if mins %}
    sum{{ r }}_{{ q }} += four_mins(packed_scales{{ q }}) * total{{ r }};
    {% endif %}
    {% endfor %}
    {% endfor %}
  }

  // ---- out ----
  {% for r in range(rows) if norm %}
  let factor{{ r }} = 1.0 / sqrt(sum_of_loaders(squares{{ r }}) / f32(params.k) + params.eps);
  {% for q in range(quads) %}
  sum{{ r }}_{{ q }} *= factor{{ r }};
  {% endfor %}
  {% endfor %}
  let out_quad = first_quad / QUADS;
  if (out_quad >= params.ends[{{ outputs - 1 }}]) {
    return;
  }
  {% for r in range(rows) %}
  if (first_row + {{ r }}u < params.m) {
    for (var c = 0u; c < 4u; c++) {
      {% if gated %}
      let column = first_quad * 4u + c;
      let value = silu(with_bias(sum{{ r }}_0[c], column)) * with_bias(sum{{ r }}_1[c], column + 4u);
      {% else %}
      let value = with_bias(sum{{ r }}_0[c], first_quad * 4u + c);
      {% endif %}
      store(row{{ r }}, out_quad, c, value, params.ends, params.widths);
    }
  }
  {% endfor %}
}
