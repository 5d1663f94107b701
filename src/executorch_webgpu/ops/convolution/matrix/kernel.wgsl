{#
Convolution as a product of matrices on tensor cores: subgroup matrices of 16 x 16, float16 with float32 sums.

A workgroup is row_subgroups x column_subgroups subgroups, each of which computes row_tiles x column_tiles matrices: rows are
output channels, columns places of all images. x comes from split_channels, weights were split at load; a step along K is
some channels under one element of the kernel. With two parts, both are sums of two float16 numbers, and three of the four
products are added: what is left out is below the rounding of float32. While a step is multiplied, the next one is on the way
to registers, and it is staged in the same turn of the loop; see matmul/gemm_matrix. Where there are few tiles, several
workgroups share one, each with some of the steps, and the kernel `sum` adds theirs up.

Inputs:
  row_subgroups = 2 | 4: of a workgroup
  column_subgroups = 2 | 4: of a workgroup
  row_tiles = 4 | 2: matrices of a subgroup
  column_tiles = 4 | 2: matrices of a subgroup
  depth = 16 | 32: of a step along K
  parts = 2 | 1: float16 numbers for each of x and of the weights
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
{% set lanes = 32 * row_subgroups * column_subgroups %}
{% set words = depth // 8 %}
{% set stride = words + 1 %}
{% set block_rows = 16 * row_tiles %}
{% set block_columns = 16 * column_tiles %}
{% set rows = block_rows * row_subgroups %}
{% set columns = block_columns * column_subgroups %}
{% set sharing = lanes // columns %}
{% set x_loads = parts * words // sharing %}
{% set w_loads = rows * parts * words // lanes %}
@group(0) @binding(0) var<storage, read> split: array<vec4<u32>>;    // [channel steps, images, in_size, parts, depth] float16
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;  // [taps, channel steps, channels, parts, depth] float16
@group(0) @binding(2) var<storage, read_write> out: array<f32>;      // [splits, images, channels, out_size]
{% include "convolution/output.wgsl" %}
@group(0) @binding(5) var<storage, read> inverses: array<f32>;  // [images]: sums are multiplied by these
@group(0) @binding(6) var<storage, read> scales: array<f32>;    // [channels]: and by these

struct Params {
  in_size: vec4<u32>,  // depth, height, width and their product; so are the next two
  out_size: vec4<u32>,
  kernel: vec4<u32>,
  stride: vec4<u32>,  // depth, height, width; so are the next two
  padding: vec4<i32>,
  dilation: vec4<i32>,
  images: u32,
  channels: u32,       // of the output
  columns: u32,        // places of all images
  channel_steps: u32,  // under an element of the kernel
  row_tiles: u32,      // workgroups over the channels
  tiles: u32,          // workgroups, but for splits
  all_steps: u32,
  steps: u32,          // of a workgroup
  splits: u32,
  split_size: u32,     // elements of out from a split to the next, whole fours
  finishes: u32,       // 0: bias and bounds come later
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

const LANES = {{ lanes }}u;
const PARTS = {{ parts }}u;
const WORDS = {{ words }}u;    // vec4s of eight float16 numbers along a step
const STRIDE = {{ stride }}u;  // of rows in workgroup memory: 16 bytes longer, so that those of a matrix lie in several banks
const COLUMN_SUBGROUPS = {{ column_subgroups }}u;
const BLOCK_ROWS = {{ block_rows }}u;        // of a subgroup
const BLOCK_COLUMNS = {{ block_columns }}u;  // of a subgroup
const ROWS = {{ rows }}u;
const COLUMNS = {{ columns }}u;
const X_LOADS = {{ x_loads }}u;  // vec4s of a place that an invocation stages

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Of a step, a block for every row of subgroups, weights [parts, block rows, depth], and one for every column of them, x
// [parts, block columns, depth]. At the end, the sums of every subgroup.
var<workgroup> w_tiles: array<array<vec4<u32>, PARTS * BLOCK_ROWS * STRIDE>, {{ row_subgroups }}>;
var<workgroup> x_tiles: array<array<vec4<u32>, PARTS * BLOCK_COLUMNS * STRIDE>, COLUMN_SUBGROUPS>;

{% include "wgsl/volume.wgsl" %}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let item = group.x + group.y * groups.x;
  if (item >= params.tiles * params.splits) {
    return;
  }
  let part_of_k = item / params.tiles;
  let tile = item % params.tiles;
  let tile_row = tile % params.row_tiles * ROWS;
  let tile_column = tile / params.row_tiles * COLUMNS;

  // ---- what this invocation stages: vec4s of x at one place, and vec4s of weights as they are ----
  // Columns past the edge repeat the last one, rows past it are read from what lies after them; neither are stored.
  let x_column = index % COLUMNS;
  let x_word = index / COLUMNS * X_LOADS;
  let column = min(tile_column + x_column, params.columns - 1u);
  let image_from = column / params.out_size.w * params.in_size.w;
  let out_at = vec3<i32>(coordinates(column % params.out_size.w, params.out_size.xyz));
  let window_at = out_at * vec3<i32>(params.stride.xyz) - params.padding.xyz;
  let x_block = x_column / BLOCK_COLUMNS;
  let x_to = x_column % BLOCK_COLUMNS * STRIDE;
  {% for i in range(x_loads) %}
  var x{{ i }}: vec4<u32>;
  {% endfor %}
  {% for i in range(w_loads) %}
  let w_flat{{ i }} = index + {{ i }}u * LANES;
  let w_row{{ i }} = w_flat{{ i }} / (PARTS * WORDS);
  let w_to{{ i }} = (w_flat{{ i }} / WORDS % PARTS * BLOCK_ROWS + w_row{{ i }} % BLOCK_ROWS) * STRIDE + w_flat{{ i }} % WORDS;
  var w{{ i }}: vec4<u32>;
  {% endfor %}
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  var sum{{ i }}_{{ j }} = Sum(0.0);
  {% endfor %}
  {% endfor %}
  let row_block = subgroup / COLUMN_SUBGROUPS;
  let column_block = subgroup % COLUMN_SUBGROUPS;

  // ---- a step along K, on the way to registers ----
  let first = part_of_k * params.steps;
  let end = min(first + params.steps, params.all_steps);
  var channel_step = first % params.channel_steps;
  var tap = first / params.channel_steps;
  var read = window_at + vec3<i32>(coordinates(tap, params.kernel.xyz)) * params.dilation.xyz;
  var inside = is_inside(read, params.in_size.xyz);
  var x_from = (image_from + select(0u, place(vec3<u32>(read), params.in_size.xyz), inside)) * (PARTS * WORDS) + x_word;
  let x_step = params.images * params.in_size.w * (PARTS * WORDS);
  var w_from = (first * params.channels + tile_row) * (PARTS * WORDS);
  {% macro fetch() %}
  {% for i in range(x_loads) %}
  x{{ i }} = select(vec4<u32>(), split[channel_step * x_step + x_from + {{ i }}u], inside);
  {% endfor %}
  {% for i in range(w_loads) %}
  w{{ i }} = weights[w_from + w_flat{{ i }}];
  {% endfor %}
  {% endmacro %}
  {% macro advance() %}
  w_from += params.channels * (PARTS * WORDS);
  channel_step++;
  if (channel_step == params.channel_steps) {
    channel_step = 0u;
    tap++;
    read = window_at + vec3<i32>(coordinates(tap, params.kernel.xyz)) * params.dilation.xyz;
    inside = is_inside(read, params.in_size.xyz);
    x_from = (image_from + select(0u, place(vec3<u32>(read), params.in_size.xyz), inside)) * (PARTS * WORDS) + x_word;
  }
  {% endmacro %}
  // ---- what was fetched, to workgroup memory ----
  {% macro stage() %}
  {% for i in range(x_loads) %}
  {
    let word = x_word + {{ i }}u;
    x_tiles[x_block][word / WORDS * (BLOCK_COLUMNS * STRIDE) + x_to + word % WORDS] = x{{ i }};
  }
  {% endfor %}
  {% for i in range(w_loads) %}
  w_tiles[w_row{{ i }} / BLOCK_ROWS][w_to{{ i }}] = w{{ i }};
  {% endfor %}
  {% endmacro %}
  {{ fetch() }}
  {{ stage() }}
  workgroupBarrier();
  for (var step = first; step < end; step++) {
    let more = step + 1u < end;
    if (more) {
      {{ advance() | indent(4) }}
      {{ fetch() | indent(4) }}
    }

    // ---- products: of two parts each, those of the upper bits with both, and of the rest of the weights with them ----
    {% for k in range(0, words, 2) %}
    {
      {% for i in range(row_tiles) %}
      {% for p in range(parts) %}
      let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
        &w_tiles[row_block], {{ (p * block_rows + 16 * i) * stride + k }}u, STRIDE);
      {% endfor %}
      {% endfor %}
      {% for j in range(column_tiles) %}
      {% for p in range(parts) %}
      let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
        &x_tiles[column_block], {{ (p * block_columns + 16 * j) * stride + k }}u, STRIDE);
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
    if (more) {
      {{ stage() | indent(4) }}
    }
    workgroupBarrier();
  }

  // ---- sums through workgroup memory, a matrix of a subgroup at a time: only there can they be seen by element ----
  {% set sums, blocks = ("x_tiles", column_subgroups) if column_subgroups >= row_subgroups else ("w_tiles", row_subgroups) %}
  {% if row_subgroups * column_subgroups > blocks %}
  let sums_from = subgroup / {{ blocks }}u * 80u;
  {% else %}
  const sums_from = 0u;
  {% endif %}
  let sums_block = subgroup % {{ blocks }}u;
  {% for j in range(column_tiles) %}
  {
    let out_column = tile_column + column_block * BLOCK_COLUMNS + {{ 16 * j }}u + lane % 16u;
    let image = min(out_column, params.columns - 1u) / params.out_size.w;
    let inverse = inverses[image];
    let to = part_of_k * params.split_size + image * (params.channels - 1u) * params.out_size.w + out_column;
    {% for i in range(row_tiles) %}
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&{{ sums }}[sums_block], sums_from, sum{{ i }}_{{ j }}, 5u);
    workgroupBarrier();
    for (var r = lane / 16u; r < 16u; r += 2u) {
      let channel = tile_row + row_block * BLOCK_ROWS + {{ 16 * i }}u + r;
      if (channel < params.channels && out_column < params.columns) {
        let bits = {{ sums }}[sums_block][sums_from + r * 5u + lane % 16u / 4u][lane % 4u];
        let value = bitcast<f32>(bits) * inverse * scales[channel];
        let at = to + channel * params.out_size.w;
        out[at] = select(value, finished(value, channel, params.low, params.high), params.finishes == 1u);
      }
    }
    {% endfor %}
  }
  {% endfor %}
}
