{#
out = x times the transpose of quantized weights, plus bias. One invocation computes a few rows of neighbouring columns.

It does so alone: what a CPU's driver runs best. There, a load costs as much as a dozen multiplications, so a loaded x serves
all columns and a weight all rows. Weights and scales lie as in the file (formats.py).

Inputs:
  rows = 1 | 4: of an invocation
  columns = 32 | 16: of an invocation
  step = 32 | 8: weights of a column at a time, a block: 32 in vec4s of words, or those of one word
  bits = 4 | 8: of a code
  high_first = False | True: of two codes of 4 bits in a byte, the first one is the high one
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  vec4_x = True | False: K is a multiple of 4
  guarded = False | True: the last block may pass the end of a row
  aligned = True | False: rows of weights are whole words; blocks of 32 have such
  bias = False | True: whether it is added
#}
{% set mins = scales == "float16_and_min" %}
{% set per_word = 8 if bits == 4 else 4 %}
{% set words = 4 if step == 32 else 1 %}
{% set loads = step // (per_word * words) %}
{% set norm = False %}
// Binding 0: x.
{% include "matmul/input.wgsl" %}
{% include "matmul/codes.wgsl" %}
{% include "matmul/scales.wgsl" %}
{% if words == 4 %}
alias Weights = vec4<u32>;
{% else %}
alias Weights = u32;
{% endif %}
@group(0) @binding(1) var<storage, read> weights: array<Weights>;  // n rows
@group(0) @binding(2) var<storage, read> scales: array<FourScales>;  // [k / group_size, scale_quads]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(4) var<storage, read> bias: array<f32>;  // [n]
{% endif %}

struct Params {
  m: u32,
  n: u32,
  k: u32,
  group_size: u32,
  row_stride: u32,    // from a row of weights to the next, in elements of the array, or in bytes if not aligned
  scale_quads: u32,   // from a row of scales to the next, in elements of the array
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(5) var<uniform> params: Params;

override wg_size: u32 = 8;

const ROWS = {{ rows }}u;
const COLUMNS = {{ columns }}u;
const STEP = {{ step }}u;
const LOADS = {{ loads }}u;  // of a block

// Load i of the row of weights that begins at `start`, a multiple of row_stride, the first code in the lowest bits.
fn load_weights(start: u32, i: u32) -> Weights {
  {% if high_first %}
  let packed = stored_weights(start, i);
  return ((packed & Weights(0x0f0f0f0fu)) << Weights(4u)) | ((packed >> Weights(4u)) & Weights(0x0f0f0f0fu));
  {% else %}
  return stored_weights(start, i);
  {% endif %}
}

fn stored_weights(start: u32, i: u32) -> Weights {
  {% if aligned or words == 4 %}
  return weights[start + i];
  {% else %}
  let byte = start + i * 4u;
  let last = (params.n * params.row_stride - 1u) / 4u;
  let shift = byte % 4u * 8u;
  let low = weights[byte / 4u] >> shift;
  // The bytes that are left of 32 bits; a shift by 32 is not one by 0, so it takes two steps.
  let high = (weights[min(byte / 4u + 1u, last)] << 8u) << (24u - shift);
  return low | high;
  {% endif %}
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let row = tile / params.column_tiles * ROWS;
  let column = (tile % params.column_tiles * wg_size + lane) * COLUMNS;
  if (row >= params.m || column >= params.n) {
    return;
  }
  // Rows and columns past the edge repeat the last one and are not stored.
  {% for r in range(rows) %}
  let row{{ r }} = min(row + {{ r }}u, params.m - 1u);
  {% for c in range(columns) %}
  var sum{{ r }}_{{ c }} = 0.0;
  {% endfor %}
  {% endfor %}
  {% for c in range(columns) %}
  let start{{ c }} = min(column + {{ c }}u, params.n - 1u) * params.row_stride;
  {% endfor %}

  for (var block = 0u; block < (params.k + STEP - 1u) / STEP; block++) {
    // ---- x of the block, and its sums for the minima ----
    let k = block * STEP;
    {% for r in range(rows) %}
    {% for q in range(step // 4) %}
    let x{{ r }}_{{ q }} = load_x(row{{ r }}, k + {{ 4 * q }}u, params.k);
    {% endfor %}
    {% if mins %}
    var totals{{ r }} = x{{ r }}_0;
    {% for q in range(1, step // 4) %}
    totals{{ r }} += x{{ r }}_{{ q }};
    {% endfor %}
    let total{{ r }} = dot(totals{{ r }}, vec4<f32>(1.0));
    {% endif %}
    {% endfor %}
    let scale_row = k / params.group_size * params.scale_quads;

    // ---- column by column ----
    {% for c in range(columns) %}
    {% if c % 4 == 0 %}
    let packed_scales{{ c // 4 }} = scales[scale_row + min(column / 4u + {{ c // 4 }}u, params.scale_quads - 1u)];
    let scale{{ c // 4 }} = four_scales(packed_scales{{ c // 4 }});
    {% if mins %}
    let min{{ c // 4 }} = four_mins(packed_scales{{ c // 4 }});
    {% endif %}
    {% endif %}
    {
      {% for i in range(loads) %}
      let packed{{ i }} = load_weights(start{{ c }}, block * LOADS + {{ i }}u);
      {% endfor %}
      {% for q in range(step // 4) %}
      {% set word = 4 * q // per_word %}
      {% if words == 4 %}
      let word{{ q }} = packed{{ word // 4 }}[{{ word % 4 }}];
      {% else %}
      let word{{ q }} = packed{{ word }};
      {% endif %}
      let codes{{ q }} = convert_codes(word{{ q }} >> {{ 4 * q % per_word * bits }}u);
      {% for r in range(rows) %}
      {% if q == 0 %}
      var products{{ r }} = dot(codes{{ q }}, x{{ r }}_{{ q }});
      {% else %}
      products{{ r }} += dot(codes{{ q }}, x{{ r }}_{{ q }});
      {% endif %}
      {% endfor %}
      {% endfor %}
      {% for r in range(rows) %}
      {% if mins %}
      sum{{ r }}_{{ c }} += scale{{ c // 4 }}[{{ c % 4 }}] * products{{ r }}
        + min{{ c // 4 }}[{{ c % 4 }}] * total{{ r }};
      {% else %}
      sum{{ r }}_{{ c }} += scale{{ c // 4 }}[{{ c % 4 }}] * products{{ r }};
      {% endif %}
      {% endfor %}
    }
    {% endfor %}
  }
  {% for r in range(rows) %}
  if (row + {{ r }}u < params.m) {
    let end = row{{ r }} * params.n + column;
    {% for c in range(columns) %}
    if (column + {{ c }}u < params.n) {
      {% if bias %}
      sum{{ r }}_{{ c }} += bias[column + {{ c }}u];
      {% endif %}
      out[end + {{ c }}u] = sum{{ r }}_{{ c }};
    }
    {% endfor %}
  }
  {% endfor %}
}
