{#
Up to 8 rows of x times packed weights. Its time is that of reading the weights.

`lanes` neighbouring invocations are a team. A team computes some quads of columns of all rows; its lanes share K, and each
has several units of every quad on the way before it uses them. At the end the parts of the lanes, or of subgroups, are
added in workgroup memory. packed.py says how weights lie.

Inputs:
  rows = 1 | 4 | 8: rows of x
  team_quads = 2 | 4: quads of columns that a team computes
  unroll = 4 | 1: units of each quad that a lane loads before it uses them
  subgroups = False | True: whether all subgroups are of one size, at most that of a team
  bits = 4 | 8 | 16 | 32: of a weight; 4 and 8 are those of codes, 16 and 32 of floats
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min" | None: see scales.wgsl; floats have none
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  vec4_x = True | False: K is a multiple of 4
  guarded = False | True: the last unit of a row may pass its end
  norm = False | True: RMSNorm of x comes first
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether a bias is added
  residual = False | True: whether a residual is added to the one output
#}
{% set fours = False %}
{% set quantized = bits <= 8 %}
{% set mins = scales == "float16_and_min" %}
{% set per_unit = 8 if bits == 4 else 4 %}
{% set squares = (rows + 3) // 4 if norm else 0 %}
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
{% if quantized %}
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% else %}
  last: u32,          // row of weights
{% endif %}
{% if norm %}
  eps: f32,
{% endif %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

override wg_size: u32 = 128;
override lanes: u32 = 32;           // of a team; wg_size is a multiple
override partial_count: u32 = 128;  // workgroup memory: wg_size, over the size of the smallest subgroup if there are any

const ROWS = {{ rows }}u;
const TEAM_QUADS = {{ team_quads }}u;
const MATRICES = {{ 2 if gated else 1 }}u;  // whose quads take turns
const OUT_QUADS = TEAM_QUADS / MATRICES;  // that a team stores
const UNROLL = {{ unroll }}u;
const PER_UNIT = {{ per_unit }}u;  // weights of a row
const SUMS = {{ rows * team_quads }}u;
const PARTS = {{ rows * team_quads + squares }}u;  // vec4s that a lane ends with: sums, and squares of four rows each

var<workgroup> partials: array<vec4<f32>, partial_count * PARTS>;

// The row, the quad and the column in it of element i of what `teams` teams store.
fn element(i: u32, teams: u32) -> vec3<u32> {
  return vec3<u32>(i / (teams * OUT_QUADS * 4u), i / 4u % (teams * OUT_QUADS), i % 4u);
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
{% if subgroups %}
  @builtin(subgroup_size) subgroup_size: u32,
  @builtin(subgroup_invocation_id) subgroup_lane: u32,
{% endif %}
) {
  let tile = group.x + group.y * groups.x;
  let first_row = tile / params.column_tiles * ROWS;
  if (first_row >= params.m) {
    return;
  }
  let teams = wg_size / lanes;
  let tile_quad = tile % params.column_tiles * teams * TEAM_QUADS;
  let first_quad = tile_quad / MATRICES;  // of the output
  let team_quad = tile_quad + index / lanes * TEAM_QUADS;

  // ---- where rows and quads begin; those past the edge repeat the last one and are not stored ----
  {% for r in range(rows) %}
  let row{{ r }} = min(first_row + {{ r }}u, params.m - 1u);
  {% endfor %}
  {% for u in range(team_quads) %}
  let quad{{ u }} = min(team_quad + {{ u }}u, params.quads - 1u);
  {% if quantized %}
  let start{{ u }} = quad{{ u }} * params.units;
  let scale_start{{ u }} = quad{{ u }} * params.groups;
  {% else %}
  let start{{ u }} = min(vec4<u32>(quad{{ u }} * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.last)) * params.units;
  {% endif %}
  {% for r in range(rows) %}
  var sum{{ r }}_{{ u }} = vec4<f32>();
  {% endfor %}
  {% endfor %}
  {% for s in range(squares) %}
  var squares{{ s }} = vec4<f32>();
  {% endfor %}
  {% if residual %}
  let mine = element(index, teams);
  // Loaded while the weights are.
  let ahead = residual_of(min(first_row + mine.x, params.m - 1u), first_quad + mine.y, mine.z, params.widths);
  {% endif %}

  for (var step = index % lanes; step < params.units; step += lanes * UNROLL) {
    // ---- loads: weights, then scales and x ----
    {% for i in range(unroll) %}
    {% if i == 0 %}
    let unit0 = step;
    {% else %}
    let unit{{ i }} = min(step + {{ i }}u * lanes, params.units - 1u);
    {% endif %}
    {% for u in range(team_quads) %}
    {% if quantized %}
    let packed{{ i }}_{{ u }} = weights[start{{ u }} + unit{{ i }}];
    {% else %}
    {% for c in range(4) %}
    let weight{{ i }}_{{ u }}_{{ c }} = load_weights(start{{ u }}[{{ c }}] + unit{{ i }});
    {% endfor %}
    {% endif %}
    {% endfor %}
    {% endfor %}
    {% for i in range(unroll) %}
    {% if quantized %}
    {% for u in range(team_quads) %}
    let packed_scales{{ i }}_{{ u }} = scales[scale_start{{ u }} + group_of(unit{{ i }}, params.group)];
    {% endfor %}
    {% endif %}
    {% for q in range(per_unit // 4) %}
    let k{{ i }}_{{ q }} = unit{{ i }} * PER_UNIT + {{ 4 * q }}u;
    {% if norm %}
    let norm{{ i }}_{{ q }} = load_norm_weight(k{{ i }}_{{ q }}, params.k);
    {% endif %}
    {% for r in range(rows) %}
    var x{{ i }}_{{ r }}_{{ q }} = load_x(row{{ r }}, k{{ i }}_{{ q }}, params.k);
    {% endfor %}
    {% endfor %}
    {% endfor %}

    // ---- products, of units that are there ----
    {% for i in range(unroll) %}
    if ({{ i }}u == 0u || step + {{ i }}u * lanes < params.units) {
      {% for r in range(rows) %}
      {% for q in range(per_unit // 4) if norm %}
      squares{{ r // 4 }}[{{ r % 4 }}] += dot(x{{ i }}_{{ r }}_{{ q }}, x{{ i }}_{{ r }}_{{ q }});
      x{{ i }}_{{ r }}_{{ q }} *= norm{{ i }}_{{ q }};
      {% endfor %}
      {% if mins and per_unit == 8 %}
      let total{{ r }} = dot(x{{ i }}_{{ r }}_0 + x{{ i }}_{{ r }}_1, vec4<f32>(1.0));
      {% elif mins %}
      let total{{ r }} = dot(x{{ i }}_{{ r }}_0, vec4<f32>(1.0));
      {% endif %}
      {% endfor %}
      {% for u in range(team_quads) %}
      {% for r in range(rows) %}
      var dots{{ r }}_{{ u }} = vec4<f32>();
      {% endfor %}
      {% for c in range(4) %}
      {% for q in range(per_unit // 4) %}
      {
        {% if quantized %}
        let codes = four_codes(packed{{ i }}_{{ u }}[{{ c }}] >> {{ 16 * q }}u);
        {% else %}
        let codes = weight{{ i }}_{{ u }}_{{ c }};
        {% endif %}
        {% for r in range(rows) %}
        dots{{ r }}_{{ u }}[{{ c }}] += dot(codes, x{{ i }}_{{ r }}_{{ q }});
        {% endfor %}
      }
      {% endfor %}
      {% endfor %}
      {% for r in range(rows) %}
      {% if mins %}
      sum{{ r }}_{{ u }} += four_scales(packed_scales{{ i }}_{{ u }}) * dots{{ r }}_{{ u }}
        + four_mins(packed_scales{{ i }}_{{ u }}) * total{{ r }};
      {% elif quantized %}
      sum{{ r }}_{{ u }} += four_scales(packed_scales{{ i }}_{{ u }}) * dots{{ r }}_{{ u }};
      {% else %}
      sum{{ r }}_{{ u }} += dots{{ r }}_{{ u }};
      {% endif %}
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
  }

  // ---- the parts of lanes, or of subgroups, which are runs of neighbouring invocations, to workgroup memory ----
  {% if subgroups %}
  let part = index / subgroup_size;
  let parts_of_team = lanes / subgroup_size;
  {% for r in range(rows) %}
  {% for u in range(team_quads) %}
  sum{{ r }}_{{ u }} = subgroupAdd(sum{{ r }}_{{ u }});
  {% endfor %}
  {% endfor %}
  {% for s in range(squares) %}
  squares{{ s }} = subgroupAdd(squares{{ s }});
  {% endfor %}
  if (subgroup_lane == 0u) {
  {% else %}
  let part = index;
  let parts_of_team = lanes;
  {
  {% endif %}
    {% for r in range(rows) %}
    {% for u in range(team_quads) %}
    partials[part * PARTS + {{ r * team_quads + u }}u] = sum{{ r }}_{{ u }};
    {% endfor %}
    {% endfor %}
    {% for s in range(squares) %}
    partials[part * PARTS + SUMS + {{ s }}u] = squares{{ s }};
    {% endfor %}
  }
  workgroupBarrier();

  // ---- an invocation for each element of the output: the parts of its team together ----
  for (var i = index; i < teams * (ROWS * OUT_QUADS * 4u); i += wg_size) {
    let place = element(i, teams);
    let r = place.x;
    let out_quad = place.y;
    let c = place.z;
    let row = first_row + r;
    let team_part = out_quad / OUT_QUADS * parts_of_team;
    let at = team_part * PARTS + r * TEAM_QUADS + out_quad % OUT_QUADS * MATRICES;
    var value = 0.0;
    {% if gated %}
    var other = 0.0;
    {% endif %}
    {% if norm %}
    var square = 0.0;
    {% endif %}
    for (var p = 0u; p < parts_of_team; p++) {
      value += partials[at + p * PARTS][c];
      {% if gated %}
      other += partials[at + p * PARTS + 1u][c];
      {% endif %}
      {% if norm %}
      square += partials[(team_part + p) * PARTS + SUMS + r / 4u][r % 4u];
      {% endif %}
    }
    {% if norm %}
    let factor = 1.0 / sqrt(square / f32(params.k) + params.eps);
    value *= factor;
    {% if gated %}
    other *= factor;
    {% endif %}
    {% endif %}
    if (row < params.m && first_quad + out_quad < params.ends[{{ outputs - 1 }}]) {
      {% if gated %}
      let column = tile_quad * 4u + out_quad * 8u + c;
      let result = silu(with_bias(value, column)) * with_bias(other, column + 4u);
      {% else %}
      let result = with_bias(value, (tile_quad + out_quad) * 4u + c);
      {% endif %}
      {% if residual %}
      if (i == index) {
        write(row, first_quad + out_quad, c, result + ahead, params.ends, params.widths);
        continue;
      }
      {% endif %}
      store(row, first_quad + out_quad, c, result, params.ends, params.widths);
    }
  }
}
