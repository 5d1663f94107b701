{#
Few rows of x times packed codes on tensor cores: gemm_matrix for steps of many sequences, whose time is that of reading
weights.

A workgroup computes all of 16 to 64 rows for some columns. Its subgroups share these: column_subgroups of them side by
side, and k_subgroups along K, each with a depth of its own in every step, whose sums are added up at the end. An
invocation loads whole vec4s of codes: eight weights along K of four columns. x comes from split_rows.

What is staged is loaded several steps ahead, into registers, and weights are dequantized into workgroup memory when their
step comes.

Where codes are paired, float16 arithmetic dequantizes two of them at a time. Two parts of weights are then the code times
the upper 7 bits of its scale, which float16 holds, and the code times the rest of it.

Of few columns, several workgroups share a tile, each with some of the steps: sum_splits adds up what they write,
[splits, m, quads].

Inputs:
  row_tiles = 1 | 2 | 4 | 8: matrices of 16 rows
  column_subgroups = 4 | 2 | 1 | 8: side by side
  column_tiles = 1 | 2: matrices of a subgroup side by side
  k_subgroups = 2 | 1 | 4 | 8: along K
  depth = 64 | 32: of a subgroup in a step along K
  ahead = 1 | 2 | 3 | 4: steps that x and weights are loaded before they are multiplied
  paired = False | True: x is in the order of pairs of codes: 4 bits, without minima where parts is 2, or 8 bits and one part
  parts = 2 | 1: float16 numbers for each of x and of the weights
  shared = False | True: several workgroups share a tile; with neither bias, gate nor residual, which sum_splits adds
  bits = 4 | 8: of a code
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min": see scales.wgsl
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether it is added
  residual = False | True: whether it is added to the one output
  fours = True | False: every width is a multiple of 4
#}
{% set lanes = 32 * column_subgroups * k_subgroups %}
{% set words = depth // 8 %}
{% set stride = words + 1 %}
{% set rows = 16 * row_tiles %}
{% set block_columns = 16 * column_tiles %}
{% set quads = column_subgroups * block_columns // 4 %}
{% set x_words = k_subgroups * rows * parts * words %}
{% set x_loads = (x_words + lanes - 1) // lanes %}
{% set step_words = k_subgroups * words %}
{% set w_loads = quads * step_words // lanes %}
{% set word_units = 1 if bits == 4 else 2 %}
{% set mins = scales == "float16_and_min" %}
@group(0) @binding(0) var<storage, read> split: array<vec4<u32>>;  // see split_rows.wgsl
// Bindings 1 and 2: weights and scales.
{% include "matmul/weights.wgsl" %}
@group(0) @binding(6) var<storage, read> column_powers: array<vec4<f32>>;  // [quads] of powers of two
{% if shared %}
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;  // [splits, m, quads]
{% else %}
// Bindings 3 to 5, 7 and 8: outputs, bias and residual.
{% include "matmul/output.wgsl" %}
{% endif %}

struct Params {
  m: u32,
  steps: u32,         // along K, of all k_subgroups together
{% if shared %}
  tiles: u32,
  part_steps: u32,    // of a workgroup
{% endif %}
  units: u32,         // words along a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% if not shared %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
{% endif %}
}
@group(0) @binding(9) var<uniform> params: Params;

const LANES = {{ lanes }}u;
const PARTS = {{ parts }}u;
const WORDS = {{ words }}u;            // vec4s of eight float16 numbers along the depth of a subgroup
const STEP_WORDS = {{ step_words }}u;  // along a step
const STRIDE = {{ stride }}u;          // of rows in workgroup memory: 16 bytes longer, so that those of a matrix lie in several banks
const ROWS = {{ rows }}u;
const QUADS = {{ quads }}u;            // of a tile
const BLOCK_COLUMNS = {{ block_columns }}u;  // of a subgroup
const COLUMN_SUBGROUPS = {{ column_subgroups }}u;
const K_SUBGROUPS = {{ k_subgroups }}u;
const WORD_UNITS = {{ word_units }}u;  // units of eight weights

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Of a step, x [parts, rows, depth] for each of the k_subgroups, and weights [parts, block columns, depth] for every
// subgroup. At the end, a matrix of sums of every subgroup.
var<workgroup> x_tiles: array<array<vec4<u32>, PARTS * ROWS * STRIDE>, K_SUBGROUPS>;
var<workgroup> w_tiles: array<array<vec4<u32>, PARTS * BLOCK_COLUMNS * STRIDE>, COLUMN_SUBGROUPS * K_SUBGROUPS>;

{% if paired %}
{% include "matmul/code_pairs.wgsl" %}
{% else %}
{% include "wgsl/halves.wgsl" %}
{% endif %}

// Eight weights along K of four columns, as they lie in memory.
struct Word {
  {% for i in range(word_units) %}
  codes{{ i }}: vec4<u32>,
  scales{{ i }}: FourScales,
  {% endfor %}
}

fn load_word(quad: u32, word: u32) -> Word {
  var loaded: Word;
  {% for i in range(word_units) %}
  {
    // Words past the end of the row are multiplied by zeros.
    let unit = min(word * WORD_UNITS + {{ i }}u, params.units - 1u);
    loaded.codes{{ i }} = weights[quad * params.units + unit];
    loaded.scales{{ i }} = scales[quad * params.groups + group_of(unit, params.group)];
  }
  {% endfor %}
  return loaded;
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  {% if shared %}
  let part = (group.x + group.y * groups.x) / params.tiles;
  let tile = (group.x + group.y * groups.x) % params.tiles;
  let first = part * params.part_steps;
  let end = min(first + params.part_steps, params.steps);
  if (first >= end) {
    return;
  }
  {% else %}
  let tile = group.x + group.y * groups.x;
  const first = 0u;
  let end = params.steps;
  {% endif %}
  let tile_row = tile / params.column_tiles * ROWS;
  let tile_quad = tile % params.column_tiles * QUADS;
  if (tile_row >= params.m) {
    return;
  }

  // ---- what this invocation stages: vec4s of x as they are, and words of some quads ----
  // Rows past the edge are read from what lies after them, columns past it are others'; neither are stored.
  let x_step = params.m * (K_SUBGROUPS * PARTS * WORDS);
  {% for i in range(x_loads) %}
  let x_place{{ i }} = index + {{ i * lanes }}u;
  let x_block{{ i }} = x_place{{ i }} / (ROWS * PARTS * WORDS);
  let x_word{{ i }} = x_place{{ i }} % (ROWS * PARTS * WORDS);
  let x_from{{ i }} = (x_block{{ i }} * params.m + tile_row) * (PARTS * WORDS) + x_word{{ i }};
  let x_to{{ i }} = (x_word{{ i }} / WORDS % PARTS * ROWS + x_word{{ i }} / (PARTS * WORDS)) * STRIDE + x_word{{ i }} % WORDS;
  {% for set in range(ahead) %}
  var x{{ set }}_{{ i }}: vec4<u32>;
  {% endfor %}
  {% endfor %}
  let w_word = index % STEP_WORDS;
  {% for i in range(w_loads) %}
  let w_place{{ i }} = index / STEP_WORDS + {{ i * lanes // step_words }}u;
  let w_quad{{ i }} = min(tile_quad + w_place{{ i }}, params.quads - 1u);
  let w_block{{ i }} = w_word / WORDS * COLUMN_SUBGROUPS + w_place{{ i }} / (BLOCK_COLUMNS / 4u);
  let w_to{{ i }} = w_place{{ i }} % (BLOCK_COLUMNS / 4u) * (4u * STRIDE) + w_word % WORDS;
  let w_power{{ i }} = column_powers[w_quad{{ i }}];
  {% for set in range(ahead) %}
  var w{{ set }}_{{ i }}: Word;
  {% endfor %}
  {% endfor %}
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  var sum{{ i }}_{{ j }} = Sum(0.0);
  {% endfor %}
  {% endfor %}
  let k_block = subgroup / COLUMN_SUBGROUPS;

  // ---- step `next` along K, on the way to registers ----
  var next = first;
  {% macro fetch(set) %}
  {% for i in range(w_loads) %}
  w{{ set }}_{{ i }} = load_word(w_quad{{ i }}, next * STEP_WORDS + w_word);
  {% endfor %}
  {% if x_words < lanes %}
  if (index < {{ x_words }}u) {
    x{{ set }}_0 = split[next * x_step + x_from0];
  }
  {% else %}
  {% for i in range(x_loads) %}
  x{{ set }}_{{ i }} = split[next * x_step + x_from{{ i }}];
  {% endfor %}
  {% endif %}
  {% endmacro %}
  // ---- what was fetched, to workgroup memory ----
  {% macro stage() %}
  {% if x_words < lanes %}
  if (index < {{ x_words }}u) {
    x_tiles[x_block0][x_to0] = x0_0;
  }
  {% else %}
  {% for i in range(x_loads) %}
  x_tiles[x_block{{ i }}][x_to{{ i }}] = x0_{{ i }};
  {% endfor %}
  {% endif %}
  {% for i in range(w_loads) %}
  {
    {% for u in range(word_units) %}
    let scales{{ u }} = four_scales(w0_{{ i }}.scales{{ u }}) * w_power{{ i }};
    {% if mins %}
    let mins{{ u }} = four_mins(w0_{{ i }}.scales{{ u }}) * w_power{{ i }};
    {% endif %}
    {% endfor %}
    {% for c in range(4) %}
    {
      let to = w_to{{ i }} + {{ c * stride }}u;
      {% for u in range(word_units) %}
      let codes{{ u }} = w0_{{ i }}.codes{{ u }}[{{ c }}];
      {% endfor %}
      {% if paired %}
      {% set last = word_units - 1 %}
      let pairs = pairs_of(codes0{{ ", codes1" if bits == 8 }});
      {% if parts == 2 %}
      let upper_scale = upper_seven(scales0[{{ c }}]);
      let rest_scale = scales0[{{ c }}] - upper_scale;
      w_tiles[w_block{{ i }}][to] = scaled_pairs(pairs, upper_scale, upper_scale);
      w_tiles[w_block{{ i }}][to + {{ block_columns * stride }}u] = scaled_pairs(pairs, rest_scale, rest_scale);
      {% else %}
      w_tiles[w_block{{ i }}][to] = scaled_pairs(
        pairs, scales0[{{ c }}], scales{{ last }}[{{ c }}]{{ ", mins0[%d], mins%d[%d]" % (c, last, c) if mins }},
      );
      {% endif %}
      {% else %}
      let low = four_codes(codes0) * scales0[{{ c }}]{{ " + mins0[%d]" % c if mins }};
      {% if bits == 4 %}
      let high = four_codes(codes0 >> 16u) * scales0[{{ c }}]{{ " + mins0[%d]" % c if mins }};
      {% else %}
      let high = four_codes(codes1) * scales1[{{ c }}]{{ " + mins1[%d]" % c if mins }};
      {% endif %}
      {% if parts == 2 %}
      w_tiles[w_block{{ i }}][to] = halves(upper(low), upper(high));
      w_tiles[w_block{{ i }}][to + {{ block_columns * stride }}u] = halves(low - upper(low), high - upper(high));
      {% else %}
      w_tiles[w_block{{ i }}][to] = halves(low, high);
      {% endif %}
      {% endif %}
    }
    {% endfor %}
  }
  {% endfor %}
  {% endmacro %}
  // A driver may put loads off until their values are used, behind all that was to hide them. So a branch that is never
  // taken, because matrices have units, uses them at once; with its barrier, it cannot be made a condition of each store.
  {% macro begin_loads(set) %}
  if (params.units == 0u) {
    workgroupBarrier();
    {% for i in range(w_loads) %}
    {% for u in range(word_units) %}
    w_tiles[0][index] = w{{ set }}_{{ i }}.codes{{ u }} ^ vec4<u32>(bitcast<u32>(w{{ set }}_{{ i }}.scales{{ u }}.x));
    {% endfor %}
    {% endfor %}
    {% for i in range(x_loads) %}
    x_tiles[0][index] = x{{ set }}_{{ i }};
    {% endfor %}
  }
  {% endmacro %}
  {% for set in range(ahead) %}
  {{ fetch(set) }}
  next = min(next + 1u, end - 1u);
  {% endfor %}
  {{ stage() }}
  workgroupBarrier();
  for (var step = first; step < end; step++) {
    {% for set in range(1, ahead) %}
    {% for i in range(w_loads) %}
    w{{ set - 1 }}_{{ i }} = w{{ set }}_{{ i }};
    {% endfor %}
    {% for i in range(x_loads) %}
    x{{ set - 1 }}_{{ i }} = x{{ set }}_{{ i }};
    {% endfor %}
    {% endfor %}
    next = min(step + {{ ahead }}u, end - 1u);
    {{ fetch(ahead - 1) | indent(2) }}
    {{ begin_loads(ahead - 1) | indent(2) }}

    // ---- products: of two parts each, those of the upper bits with both, and of the rest of x with the upper bits ----
    {% for k in range(0, words, 2) %}
    {
      {% for i in range(row_tiles) %}
      {% for p in range(parts) %}
      let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
        &x_tiles[k_block], {{ (p * rows + 16 * i) * stride + k }}u, STRIDE);
      {% endfor %}
      {% endfor %}
      {% for j in range(column_tiles) %}
      {% for p in range(parts) %}
      let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
        &w_tiles[subgroup], {{ (p * block_columns + 16 * j) * stride + k }}u, STRIDE);
      {% endfor %}
      {% for l, r in ([(0, 0), (1, 0), (0, 1)] if parts == 2 else [(0, 0)]) %}
      {% for i in range(row_tiles) %}
      sum{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(left{{ i }}_{{ l }}, right{{ j }}_{{ r }}, sum{{ i }}_{{ j }});
      {% endfor %}
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
    workgroupBarrier();
    {{ stage() | indent(2) }}
    workgroupBarrier();
  }

  // ---- sums through workgroup memory, a matrix of each subgroup at a time: only there can they be seen by element ----
  const ITEM_QUADS = {{ 2 if gated else 1 }}u;
  const ROW_ITEMS = 4u / ITEM_QUADS;
  let inverses_from = params.steps * x_step;
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&w_tiles[subgroup], 0u, sum{{ i }}_{{ j }}, 5u);
  workgroupBarrier();
  for (var item = index; item < COLUMN_SUBGROUPS * 16u * ROW_ITEMS; item += LANES) {
    let block = item / (16u * ROW_ITEMS);
    let at = item / ROW_ITEMS % 16u * 5u + item % ROW_ITEMS * ITEM_QUADS;
    let row = tile_row + {{ 16 * i }}u + item / ROW_ITEMS % 16u;
    let quad = tile_quad + block * (BLOCK_COLUMNS / 4u) + {{ 4 * j }}u + item % ROW_ITEMS * ITEM_QUADS;
    if (row < params.m && quad < params.quads) {
      {% for q in range(2 if gated else 1) %}
      var value{{ q }} = bitcast<vec4<f32>>(w_tiles[block][at + {{ q }}u]);
      {% for k in range(1, k_subgroups) %}
      value{{ q }} += bitcast<vec4<f32>>(w_tiles[{{ k * column_subgroups }}u + block][at + {{ q }}u]);
      {% endfor %}
      // 1 / 2^n is 254 - (n + 127) in the exponent.
      value{{ q }} *= bitcast<f32>(split[inverses_from + row].x)
        * bitcast<vec4<f32>>(vec4<u32>(0x7f000000u) - bitcast<vec4<u32>>(column_powers[quad + {{ q }}u]));
      {% endfor %}
      {% if shared %}
      {% for q in range(2 if gated else 1) %}
      sums[(part * params.m + row) * params.quads + quad + {{ q }}u] = value{{ q }};
      {% endfor %}
      {% else %}
      {% if gated %}
      let result = silu_four(with_bias_four(value0, quad)) * with_bias_four(value1, quad + 1u);
      store_four(row, quad / 2u, result, params.ends, params.widths);
      {% else %}
      store_four(row, quad, with_bias_four(value0, quad), params.ends, params.widths);
      {% endif %}
      {% endif %}
    }
  }
  {% endfor %}
  {% endfor %}
}
