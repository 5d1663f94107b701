{#
Many rows of x times packed weights on tensor cores: subgroup matrices of 16 x 16, float16 with float32 sums.

A workgroup is row_subgroups x column_subgroups subgroups, each of which computes row_tiles x column_tiles matrices. x comes
from split_rows; weights are dequantized once a step along K, and scaled by a power of two for each column. With two parts, both
are sums of two float16 numbers, and three of the four products are added: what is left out is below the rounding of float32.

While a step is multiplied, the next one is on the way to registers. It is staged in the same turn of the loop: a driver
that sees its use there loads it first, and last if the use is in the next turn. Several workgroups share a
multiprocessor, so workgroup memory is for one step. Matrices lie at constant offsets of an inner array, because Tint
guards those at other offsets by a branch each.

Or both operands are split before: of each of some batches, x [m, K] times a matrix whose columns split_channels wrote.

Of few tiles, several workgroups share one, each with some of the steps: sum_splits adds up what they write,
[splits, m, quads].

Inputs:
  row_subgroups = 2 | 4: of a workgroup
  column_subgroups = 2 | 4: of a workgroup
  row_tiles = 4 | 2: matrices of a subgroup
  column_tiles = 4 | 2: matrices of a subgroup
  depth = 16 | 32: of a step along K
  parts = 2 | 1: float16 numbers for each of x and of the weights
  shared = False | True: several workgroups share a tile; with neither bias, gate nor residual, which sum_splits adds
  x_powers = False | True: the powers of two of rows of x are in a buffer of their own
  out_parts = 0 | 2 | 1: the one output, without bias and residual, is float32, or rows split to so many float16 numbers
  out_pairs = 0 | 4 | 8: see split_eights.wgsl
  paired = False | True: x is in the order of pairs of codes (code_pairs.wgsl); of one part only
  split_weights = False | True: weights are split, too, and there are batches; outputs is 1, and there is no residual
  bits = 4 | 8 | 16 | 32: of a weight that is not split; 4 and 8 are those of codes, 16 and 32 of floats
  zero_point = 8 | 0: what is subtracted from each code of 4 bits; codes of 8 bits are signed
  scales = "float32" | "float16" | "float16_and_min" | None: see scales.wgsl; floats have none
  group_shift = True | False: the units of a group are a power of two, of which params.group is the exponent
  outputs = 1 | 2 | 3: matrices, each with an output of its own
  gated = False | True: quads take turns between two matrices, and silu(first) * second is the one output
  bias = False | True: whether it is added
  residual = False | True: whether it is added to the one output
  fours = True | False: every width is a multiple of 4
#}
{% set lanes = 32 * row_subgroups * column_subgroups %}
{% set words = depth // 8 %}
{% set stride = words + 1 %}
{% set block_rows = 16 * row_tiles %}
{% set block_columns = 16 * column_tiles %}
{% set pass_rows = lanes // (parts * words) %}
{% set pass_columns = lanes // words %}
{% set x_loads = block_rows * row_subgroups // pass_rows %}
{% set w_loads = block_columns * column_subgroups // (pass_rows if split_weights else pass_columns) %}
{% set quantized = bits <= 8 %}
{% set mins = scales == "float16_and_min" %}
{% set word_units = 1 if bits == 4 else 2 %}
{# Sums leave by strips of matrices, 16 rows at a time, for each subgroup in a block, or a part of one. #}
{% set block_count = row_subgroups + column_subgroups %}
{% set block_words = parts * [block_rows, block_columns] | max * stride %}
{% set sharing = (row_subgroups * column_subgroups + block_count - 1) // block_count %}
{% set strip = 4 if column_tiles >= 4 and sharing * 16 * 17 <= block_words else 2 if column_tiles >= 2 and sharing * 16 * 9 <= block_words else 1 %}
{% set strip_stride = 4 * strip + 1 %}
{% set outs = 2 if out_parts else 1 %}
{% set item_quads = outs * (2 if gated else 1) %}
{% set strip_items = 4 * strip // item_quads %}
{% set unit = "u32" if quantized else "vec2<u32>" if bits == 16 else "vec4<f32>" %}
@group(0) @binding(0) var<storage, read> split: array<vec4<u32>>;  // see split_rows.wgsl
{% if split_weights %}
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [steps, batches, columns, parts, depth] float16
{% elif quantized %}
@group(0) @binding(1) var<storage, read> weights: array<u32>;      // [quads, units, 4]
// [quads, groups, 4] scales, or pairs of a scale and a minimum
@group(0) @binding(2) var<storage, read> scales: array<{{ "f32" if scales == "float32" else "u32" }}>;
{% else %}
@group(0) @binding(1) var<storage, read> weights: array<{{ unit }}>;  // [rows, units], four weights of a row each
{% endif %}
{% if shared %}
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;  // [splits, m, quads]
{% elif out_parts %}
{% include "wgsl/split_eights.wgsl" %}
{% include "wgsl/silu.wgsl" %}
@group(0) @binding(4) var<storage, read> out_power: array<vec4<f32>>;   // its inverse and itself
{% else %}
// Bindings 3 to 5, 7 and 8: outputs, bias and residual.
{% include "matmul/output.wgsl" %}
{% endif %}
{% if split_weights %}
@group(0) @binding(6) var<storage, read> inverses: array<f32>;  // [batches]: of powers of two
{% else %}
@group(0) @binding(6) var<storage, read> column_powers: array<vec4<f32>>;  // [quads] of powers of two
{% endif %}
{% if x_powers %}
@group(0) @binding(10) var<storage, read> x_inverses: array<vec4<f32>>;  // of powers of two: those of rows, or one of all
{% endif %}

struct Params {
  m: u32,
  steps: u32,         // along K
{% if shared %}
  tiles: u32,
  part_steps: u32,    // of a workgroup
{% endif %}
{% if split_weights %}
  batches: u32,
  batch_tiles: u32,   // of a batch; those of a batch follow each other
{% else %}
  units: u32,         // of a row of weights: words of codes, or fours of floats
{% endif %}
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
{% if split_weights %}
{% elif quantized %}
  group: u32,         // units of a group, or the exponent
  groups: u32,        // of a row of weights
{% else %}
  last: u32,          // row of weights
{% endif %}
{% if x_powers %}
  inverse_from: u32,
  inverse_step: u32,  // from row to row; 0 where one is that of all
{% endif %}
{% if out_parts %}
  out_words: u32,     // of a step along the output's own columns
{% elif not shared %}
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
{% endif %}
}
@group(0) @binding(9) var<uniform> params: Params;

const LANES = {{ lanes }}u;
const PARTS = {{ parts }}u;
const WORDS = {{ words }}u;    // vec4s of eight float16 numbers along a step
const STRIDE = {{ stride }}u;  // of rows in workgroup memory: 16 bytes longer, so that those of a matrix lie in several banks
const ROW_SUBGROUPS = {{ row_subgroups }}u;
const COLUMN_SUBGROUPS = {{ column_subgroups }}u;
const BLOCK_ROWS = {{ block_rows }}u;        // of a subgroup
const BLOCK_COLUMNS = {{ block_columns }}u;  // of a subgroup
const ROWS = BLOCK_ROWS * ROW_SUBGROUPS;
const COLUMNS = BLOCK_COLUMNS * COLUMN_SUBGROUPS;
const PASS_COLUMNS = {{ pass_columns }}u;  // of weights that the workgroup stages at a time: a power of two, like the blocks
const WORD_UNITS = {{ word_units }}u;      // units of eight weights

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Of a step, a block for every row of subgroups, x [parts, block rows, depth], and behind them one for every column of
// subgroups, weights [parts, block columns, depth]. At the end, strips of the sums of every subgroup.
var<workgroup> blocks: array<array<vec4<u32>, {{ block_words }}>, {{ block_count }}>;

{% if paired %}
{% include "matmul/code_pairs.wgsl" %}
{% elif not out_parts %}
{% include "wgsl/halves.wgsl" %}
{% endif %}
{% if not split_weights %}
{% include "matmul/gemm_matrix/weights.wgsl" %}
{% endif %}
// Four columns of a row of sums, one of all batches, without the powers of two; `inverses_of_four` are those of its columns.
fn scaled(sums: vec4<u32>, row: u32{{ "" if split_weights else ", inverses_of_four: vec4<f32>" }}) -> vec4<f32> {
  {% if split_weights %}
  let inverse = bitcast<f32>(split[params.steps * params.batches * params.m * (PARTS * WORDS) + row].x);
  return bitcast<vec4<f32>>(sums) * inverse * inverses[row / params.m];
  {% else %}
  {% if x_powers %}
  let inverse = x_inverses[params.inverse_from + row * params.inverse_step].x;
  {% else %}
  let inverse = bitcast<f32>(split[params.steps * params.m * (PARTS * WORDS) + row].x);
  {% endif %}
  return bitcast<vec4<f32>>(sums) * inverse * inverses_of_four;
  {% endif %}
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  {% if split_weights %}
  let item = group.x + group.y * groups.x;
  let batch = item / params.batch_tiles;
  let tile = item % params.batch_tiles;
  {% elif shared %}
  let part = (group.x + group.y * groups.x) / params.tiles;
  let tile = (group.x + group.y * groups.x) % params.tiles;
  {% else %}
  let tile = group.x + group.y * groups.x;
  {% endif %}
  let tile_row = tile / params.column_tiles * ROWS;
  let tile_quad = tile % params.column_tiles * (COLUMNS / 4u);
  {% if shared %}
  let first = part * params.part_steps;
  let end = min(first + params.part_steps, params.steps);
  if (first >= end) {
    return;
  }
  {% else %}
  const first = 0u;
  let end = params.steps;
  if ({{ "batch >= params.batches" if split_weights else "tile_row >= params.m" }}) {
    return;
  }
  {% endif %}

  // ---- what this invocation stages: vec4s of x as they are, and 8 weights along K in each of some columns, or as x ----
  // Rows past the edge are read from what lies after them, columns past it are others'; neither are stored.
  {% if split_weights %}
  let first_row = batch * params.m;
  let x_step = params.batches * params.m * (PARTS * WORDS);
  {% else %}
  const first_row = 0u;
  let x_step = params.m * (PARTS * WORDS);
  {% endif %}
  let x_from = (first_row + tile_row) * (PARTS * WORDS) + index;
  let x_row = index / (PARTS * WORDS);
  let x_block = x_row / BLOCK_ROWS;
  let x_to = (index / WORDS % PARTS * BLOCK_ROWS + x_row % BLOCK_ROWS) * STRIDE + index % WORDS;
  {% for i in range(x_loads) %}
  var x{{ i }}: vec4<u32>;
  {% endfor %}
  {% if split_weights %}
  let w_step = params.batches * params.widths[0] * (PARTS * WORDS);
  {% for i in range(w_loads) %}
  let w_column{{ i }} = min(tile_quad * 4u + x_row + {{ i * pass_rows }}u, params.widths[0] - 1u);
  let w_from{{ i }} = (batch * params.widths[0] + w_column{{ i }}) * (PARTS * WORDS) + index % (PARTS * WORDS);
  var w{{ i }}: vec4<u32>;
  {% endfor %}
  let w_block = x_row / BLOCK_COLUMNS;
  let w_to = (index / WORDS % PARTS * BLOCK_COLUMNS + x_row % BLOCK_COLUMNS) * STRIDE + index % WORDS;
  {% else %}
  let w_word = index / 4u % WORDS;
  let w_column = index / (4u * WORDS) * 4u + index % 4u;
  let w_block = w_column / BLOCK_COLUMNS;
  let w_to = w_column % BLOCK_COLUMNS * STRIDE + w_word;
  {% for i in range(w_loads) %}
  let w_quad{{ i }} = min(tile_quad + w_column / 4u + {{ i }}u * PASS_COLUMNS / 4u, params.quads - 1u);
  {% if quantized %}
  let w_from{{ i }} = w_quad{{ i }} * params.units * 4u + w_column % 4u;
  let scales_from{{ i }} = w_quad{{ i }} * params.groups * 4u + w_column % 4u;
  {% else %}
  let w_from{{ i }} = min(w_quad{{ i }} * 4u + w_column % 4u, params.last) * params.units;
  const scales_from{{ i }} = 0u;
  {% endif %}
  let w_power{{ i }} = column_powers[w_quad{{ i }}][w_column % 4u];
  var w{{ i }}: Eight;
  {% endfor %}
  {% endif %}
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  var sum{{ i }}_{{ j }} = Sum(0.0);
  {% endfor %}
  {% endfor %}
  let row_block = subgroup / COLUMN_SUBGROUPS;
  let column_block = subgroup % COLUMN_SUBGROUPS;

  // ---- step `next` along K, on the way to registers ----
  var next = first;
  {% macro fetch() %}
  {% for i in range(x_loads) %}
  x{{ i }} = split[next * x_step + (x_from + {{ i }}u * LANES)];
  {% endfor %}
  {% for i in range(w_loads) %}
  {% if split_weights %}
  w{{ i }} = weights[next * w_step + w_from{{ i }}];
  {% else %}
  w{{ i }} = load_weights(w_from{{ i }}, scales_from{{ i }}, next * WORDS + w_word);
  {% endif %}
  {% endfor %}
  {% endmacro %}
  // ---- what was fetched, to workgroup memory ----
  {% macro stage() %}
  {% for i in range(x_loads) %}
  blocks[x_block + {{ i * pass_rows // block_rows }}u][x_to + {{ i * pass_rows % block_rows * stride }}u] = x{{ i }};
  {% endfor %}
  {% for i in range(w_loads) %}
  {% if split_weights %}
  blocks[ROW_SUBGROUPS + w_block + {{ i * pass_rows // block_columns }}u][w_to + {{ i * pass_rows % block_columns * stride }}u] = w{{ i }};
  {% else %}
  {
    let block = ROW_SUBGROUPS + w_block + {{ i * pass_columns // block_columns }}u;
    let to = w_to + {{ i * pass_columns % block_columns * stride }}u;
    {% if paired %}
    {% set last = word_units - 1 %}
    let pairs = pairs_of(w{{ i }}.word0{{ ", w%d.word1" % i if bits == 8 }});
    {% for u in range(word_units) %}
    let scale{{ u }} = scale_of(w{{ i }}.scale{{ u }}) * w_power{{ i }};
    {% endfor %}
    blocks[block][to] = scaled_pairs(pairs, scale0.x, scale{{ last }}.x{{ ", scale0.y, scale%d.y" % last if mins }});
    {% else %}
    let low = low_weights(w{{ i }}) * w_power{{ i }};
    let high = high_weights(w{{ i }}) * w_power{{ i }};
    {% if parts == 2 %}
    blocks[block][to] = halves(upper(low), upper(high));
    blocks[block][to + BLOCK_COLUMNS * STRIDE] = halves(low - upper(low), high - upper(high));
    {% else %}
    blocks[block][to] = halves(low, high);
    {% endif %}
    {% endif %}
  }
  {% endif %}
  {% endfor %}
  {% endmacro %}
  {{ fetch() }}
  {{ stage() }}
  workgroupBarrier();
  for (var step = first; step < end; step++) {
    next = min(step + 1u, end - 1u);
    {{ fetch() | indent(2) }}

    // ---- products: of two parts each, those of the upper bits with both, and of the rest of x with the upper bits ----
    {% for k in range(0, words, 2) %}
    {
      {% for i in range(row_tiles) %}
      {% for p in range(parts) %}
      let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
        &blocks[row_block], {{ (p * block_rows + 16 * i) * stride + k }}u, STRIDE);
      {% endfor %}
      {% endfor %}
      {% for j in range(column_tiles) %}
      {% for p in range(parts) %}
      let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
        &blocks[ROW_SUBGROUPS + column_block], {{ (p * block_columns + 16 * j) * stride + k }}u, STRIDE);
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

  // ---- sums through workgroup memory, a strip of matrices of a subgroup at a time: only there can they be seen by element ----
  const ITEM_QUADS = {{ item_quads }}u;
  const ITEMS = {{ strip_items }}u;  // of a row
  const TURN_ROWS = 32u / ITEMS;
  {% if sharing > 1 %}
  let sums_from = subgroup / {{ block_count }}u * {{ 16 * strip_stride }}u;
  {% else %}
  const sums_from = 0u;
  {% endif %}
  let sums_block = subgroup % {{ block_count }}u;
  let from_lane = sums_from + lane / ITEMS * {{ strip_stride }}u + lane % ITEMS * ITEM_QUADS;
  let lane_row = tile_row + row_block * BLOCK_ROWS + lane / ITEMS;
  {% for j in range(0, column_tiles, strip) %}
  {
    let quad = tile_quad + column_block * (BLOCK_COLUMNS / 4u) + {{ 4 * j }}u + lane % ITEMS * ITEM_QUADS;
    {% if not split_weights %}
    {% for q in range(item_quads) %}
    // 1 / 2^n is 254 - (n + 127) in the exponent.
    let inverses{{ q }} = bitcast<vec4<f32>>(
      vec4<u32>(0x7f000000u) - bitcast<vec4<u32>>(column_powers[min(quad + {{ q }}u, params.quads - 1u)]),
    );
    {% endfor %}
    {% endif %}
    {% for i in range(row_tiles) %}
    workgroupBarrier();
    {% for s in range(strip) %}
    subgroupMatrixStore<row_major>(&blocks[sums_block], sums_from + {{ 4 * s }}u, sum{{ i }}_{{ j + s }}, {{ strip_stride }}u);
    {% endfor %}
    workgroupBarrier();
    for (var turn = 0u; turn * TURN_ROWS < 16u; turn++) {
      let row = lane_row + {{ 16 * i }}u + turn * TURN_ROWS;
      let at = from_lane + turn * (TURN_ROWS * {{ strip_stride }}u);
      if (row < params.m && quad < params.quads && lane < 16u * ITEMS) {
        {% for q in range(item_quads) %}
        let value{{ q }} = scaled(blocks[sums_block][at + {{ q }}u], first_row + row{{ "" if split_weights else ", inverses%d" % q }});
        {% endfor %}
        {% if shared %}
        sums[(part * params.m + row) * params.quads + quad] = value0;
        {% elif out_parts %}
        {% for o in range(2) %}
        let result{{ o }} = {{ "silu_four(value%d) * value%d" % (2 * o, 2 * o + 1) if gated else "value%d" % o }} * out_power[0].y;
        {% endfor %}
        store_eight(quad / ITEM_QUADS, first_row + row, params.m, params.out_words, result0, result1);
        {% elif gated %}
        let result = silu_four(with_bias_four(value0, quad)) * with_bias_four(value1, quad + 1u);
        store_four(first_row + row, quad / 2u, result, params.ends, params.widths);
        {% else %}
        store_four(first_row + row, quad, with_bias_four(value0, quad), params.ends, params.widths);
        {% endif %}
      }
    }
    {% endfor %}
  }
  {% endfor %}
}
