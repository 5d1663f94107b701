{#
Many rows of x times packed weights, in float32.

A workgroup of 16 x 16 invocations computes a tile of 64 * row_quads rows and 16 * column_quads quads of columns, an
invocation 4 * row_quads rows of column_quads quads, a step along K at a time. The next step's x and weights are on the way
while this one's are multiplied. packed.py says how weights lie.

All invocations stage: a quad of rows or of columns at two neighbours along K each, in packs of four. Of a pair of neighbours
along K, quads lie in another order, so that what neighbouring invocations store lies in different banks. The products of a
step are written out: places in workgroup memory that are constants apart cost no instructions.

Inputs:
  row_quads = 2 | 1: fours of rows of an invocation
  column_quads = 2 | 1 | 4: fours of columns of an invocation; even if gated
  depth = 16 | 8 | 32: of a step along K
  bits = 4 | 8 | 16 | 32: of a weight; 4 and 8 are those of codes, 16 and 32 of floats
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min" | None: see scales.wgsl; floats have none
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  even_x = True | False: K is even
  guarded = False | True: the last step may pass the end of a row
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether it is added
  residual = False | True: whether it is added to the one output
  fours = True | False: every width is a multiple of 4
#}
{% set quantized = bits <= 8 %}
{% set mins = scales == "float16_and_min" %}
{% set per_unit = 8 if bits == 4 else 4 %}
{% set pairs = depth // 2 %}
{% set x_items = 16 * row_quads * pairs %}
{% set w_items = 16 * column_quads * pairs %}
{% if fours or not bias %}
// Unchecked: every index follows from sizes and numbers of invocations, and those past an edge are cut off.
{% else %}
// Loops end: they count up to K. The bias of one matrix may be shorter than its quads, so indices are checked.
{% endif %}

// [m, K], in twos if K is even
@group(0) @binding(0) var<storage, read> x: array<{{ "vec2<f32>" if even_x else "f32" }}>;
// Bindings 1 and 2: weights and scales; 3 to 5, 7 and 8: outputs, bias and residual.
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
const PAIRS = {{ pairs }}u;                // neighbours along K of a step, a power of two
const PER_UNIT = {{ per_unit }}u;          // weights of a row
const X_QUADS = {{ 16 * row_quads }}u;     // fours of rows of the tile
const W_QUADS = {{ 16 * column_quads }}u;  // fours of columns
const COLUMN_QUADS = {{ column_quads }}u;

// [k, quads]; a pair of k has its quads at the place that differs in the bits of the pair's number.
var<workgroup> x_tile: array<vec4<f32>, DEPTH * X_QUADS>;
var<workgroup> w_tile: array<vec4<f32>, DEPTH * W_QUADS>;

// x of two neighbours along K, zero past the end of the row.
fn load_pair(row: u32, k: u32) -> vec2<f32> {
  {% if guarded %}
  if (k >= params.k) {
    return vec2<f32>();
  }
  {% endif %}
  {% if even_x %}
  return x[(row * params.k + k) / 2u];
  {% else %}
  let at = row * params.k + k;
  return vec2<f32>(x[at], select(0.0, x[min(at + 1u, params.m * params.k - 1u)], k + 1u < params.k));
  {% endif %}
}

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

  // ---- who stages what: neighbours of a row, and of a quad of columns. Past the edge the last ones are repeated ----
  let pair = index % PAIRS;
  let x_to = pair * (2u * X_QUADS);
  let w_to = pair * (2u * W_QUADS);
  let in_unit = pair * 2u % PER_UNIT;
  let unit_of_step = pair * 2u / PER_UNIT;
  {% set every = 256 // pairs %}
  {% set x_turns = [x_items // 256, 1] | max %}
  {% set w_turns = [w_items // 256, 1] | max %}
  {% macro x_quad(i) %}(index / PAIRS + {{ i * every }}u){% endmacro %}
  {% macro w_place(i) %}(index / PAIRS + {{ i * every }}u){% endmacro %}
  {% for i in range(x_turns) %}
  {% for r in range(4) %}
  let row{{ i }}_{{ r }} = min(tile_row + {{ x_quad(i) }} * 4u + {{ r }}u, params.m - 1u);
  var x{{ i }}_{{ r }} = vec2<f32>();
  {% endfor %}
  {% endfor %}
  {% for i in range(w_turns) %}
  let w_quad{{ i }} = min(tile_quad + {{ w_place(i) }}, params.quads - 1u);
  {% if quantized %}
  var packed{{ i }} = vec4<u32>();
  var packed_scales{{ i }} = scales[w_quad{{ i }} * params.groups];
  {% else %}
  let w_start{{ i }} = min(vec4<u32>(w_quad{{ i }} * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.last)) * params.units;
  {% for c in range(4) %}
  var w{{ i }}_{{ c }} = vec4<f32>();
  {% endfor %}
  {% endif %}
  {% endfor %}

  {% for r in range(4 * row_quads) %}
  {% for j in range(column_quads) %}
  var sum{{ r }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  // ---- the step at `next` along K, on the way to registers ----
  var next = 0u;
  {% macro load() %}
  {% for i in range(x_turns) %}
  {% for r in range(4) %}
  x{{ i }}_{{ r }} = load_pair(row{{ i }}_{{ r }}, next + pair * 2u);
  {% endfor %}
  {% endfor %}
  {% for i in range(w_turns) %}
  {
    let unit = min(next / PER_UNIT + unit_of_step, params.units - 1u);
    {% if quantized %}
    packed{{ i }} = weights[w_quad{{ i }} * params.units + unit];
    packed_scales{{ i }} = scales[w_quad{{ i }} * params.groups + group_of(unit, params.group)];
    {% else %}
    let inside = next / PER_UNIT + unit_of_step < params.units;
    {% for c in range(4) %}
    w{{ i }}_{{ c }} = select(vec4<f32>(), load_weights(w_start{{ i }}[{{ c }}] + unit), inside);
    {% endfor %}
    {% endif %}
  }
  {% endfor %}
  {% endmacro %}
  {{ load() }}
  while (next < params.k) {
    // ---- what was loaded, to workgroup memory ----
    {% for i in range(x_turns) %}
    {% if x_items < 256 %}
    if (index < {{ x_items }}u) {
    {% else %}
    {
    {% endif %}
      let to = x_to + ({{ x_quad(i) }} ^ pair);
      {% for k in range(2) %}
      x_tile[to{{ " + X_QUADS" if k }}] = vec4<f32>(x{{ i }}_0[{{ k }}], x{{ i }}_1[{{ k }}], x{{ i }}_2[{{ k }}], x{{ i }}_3[{{ k }}]);
      {% endfor %}
    }
    {% endfor %}
    {% for i in range(w_turns) %}
    {% if w_items < 256 %}
    if (index < {{ w_items }}u) {
    {% else %}
    {
    {% endif %}
      // The quads of an invocation are neighbours, but in the tile they lie 16 apart.
      let place = {{ w_place(i) }} % COLUMN_QUADS * 16u + {{ w_place(i) }} / COLUMN_QUADS;
      let to = w_to + (place ^ pair);
      {% if quantized %}
      let scale = four_scales(packed_scales{{ i }});
      {% if mins %}
      let least = four_mins(packed_scales{{ i }});
      {% endif %}
      {% for k in range(2) %}
      w_tile[to{{ " + W_QUADS" if k }}] = scale * codes_at(packed{{ i }}, in_unit{{ " + 1u" if k }}){{ " + least" if mins }};
      {% endfor %}
      {% else %}
      {% for c in range(4) %}
      let two{{ c }} = select(w{{ i }}_{{ c }}.xy, w{{ i }}_{{ c }}.zw, in_unit != 0u);
      {% endfor %}
      {% for k in range(2) %}
      w_tile[to{{ " + W_QUADS" if k }}] = vec4<f32>(two0[{{ k }}], two1[{{ k }}], two2[{{ k }}], two3[{{ k }}]);
      {% endfor %}
      {% endif %}
    }
    {% endfor %}
    workgroupBarrier();
    next += DEPTH;
    if (next < params.k) {
      {{ load() | indent(4) }}
    }

    // ---- products of the step; both are below 16, which a driver that sees the mask need not check ----
    {% for p in range(pairs) %}
    {
      let x_from = (local.y ^ {{ p }}u) & 15u;
      let w_from = (local.x ^ {{ p }}u) & 15u;
      {% for k in (2 * p, 2 * p + 1) %}
      {
        {% for i in range(row_quads) %}
        let a{{ i }} = x_tile[x_from + {{ k * 16 * row_quads + 16 * i }}u];
        {% endfor %}
        {% for j in range(column_quads) %}
        let b{{ j }} = w_tile[w_from + {{ k * 16 * column_quads + 16 * j }}u];
        {% endfor %}
        {% for r in range(4 * row_quads) %}
        {% for j in range(column_quads) %}
        sum{{ r }}_{{ j }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ j }};
        {% endfor %}
        {% endfor %}
      }
      {% endfor %}
    }
    {% endfor %}
    workgroupBarrier();
  }

  // ---- output ----
  let quad = tile_quad + local.x * COLUMN_QUADS;
  {% for r in range(4 * row_quads) %}
  {
    let row = tile_row + local.y * 4u + {{ r // 4 * 64 + r % 4 }}u;
    {% for j in range(0, column_quads, 2 if gated else 1) %}
    if (row < params.m && quad + {{ j }}u < params.quads) {
      let first = with_bias_four(sum{{ r }}_{{ j }}, quad + {{ j }}u);
      {% if gated %}
      let value = silu_four(first) * with_bias_four(sum{{ r }}_{{ j + 1 }}, quad + {{ j + 1 }}u);
      store_four(row, (quad + {{ j }}u) / 2u, value, params.ends, params.widths);
      {% else %}
      store_four(row, quad + {{ j }}u, first, params.ends, params.widths);
      {% endif %}
    }
    {% endfor %}
  }
  {% endfor %}
}
