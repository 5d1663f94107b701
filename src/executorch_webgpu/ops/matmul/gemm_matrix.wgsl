// Many rows of x times packed weights on tensor cores: subgroup matrices of 16 x 16, float16 with float32 sums.
//
// A workgroup computes {{ rows }} rows x {{ columns }} columns, a subgroup {{ 16 * row_tiles }} x {{ 16 * column_tiles }} of them.
// x comes from split_rows.wgsl; weights are dequantized once a step of {{ depth }} along K, scaled by a power of two for each
// column. {{ "Both are sums of two float16 numbers, and three of the four products are added: what is left out is below the
// rounding of float32." if parts == 2 else "Both are rounded to float16." }}
// While a step is multiplied, the next one is on the way to registers. It is staged in the same turn of the loop: a driver
// that sees its use there loads it first, and last if the use is in the next turn. Several workgroups share a
// multiprocessor, so workgroup memory is for one step. Matrices lie at constant offsets of an inner array, because Tint
// guards those at other offsets by a branch each.
{% set lanes = 32 * row_subgroups * column_subgroups %}
{% set words = depth // 8 %}
{# Rows in workgroup memory are 16 bytes longer than they must be, so that those of a matrix lie in several banks. #}
{% set stride = words + 1 %}
{% set block_rows = 16 * row_tiles %}
{% set block_columns = 16 * column_tiles %}
{# Rows of x, and columns of weights, that the workgroup stages at a time: powers of two, like the blocks. #}
{% set pass_rows = lanes // (parts * words) %}
{% set x_loads = rows // pass_rows %}
{% set pass_columns = lanes // words %}
{% set w_loads = columns // pass_columns %}
{% macro fetch(step) %}
{% for i in range(x_loads) %}
x{{ i }} = split[{{ step }} * x_step + (x_from + {{ i * lanes }}u)];
{% endfor %}
{% for i in range(w_loads) %}
w{{ i }} = load_weights(w_from{{ i }}, scales_from{{ i }}, {{ step }} * {{ words }}u + w_word);
{% endfor %}
{% endmacro %}
{% set word_units = 8 // per_unit %}
{% macro stage() %}
{% for i in range(x_loads) %}
x_tiles[x_block + {{ i * pass_rows // block_rows }}u][x_to + {{ i * pass_rows % block_rows * stride }}u] = x{{ i }};
{% endfor %}
{% for i in range(w_loads) %}
{
  let low = low_weights(w{{ i }}) * w_power{{ i }};
  let high = high_weights(w{{ i }}) * w_power{{ i }};
  let block = w_block + {{ i * pass_columns // block_columns }}u;
  let to = w_to + {{ i * pass_columns % block_columns * stride }}u;
  {% if parts == 2 %}
  w_tiles[block][to] = halves(upper(low), upper(high));
  w_tiles[block][to + {{ block_columns * stride }}u] = halves(low - upper(low), high - upper(high));
  {% else %}
  w_tiles[block][to] = halves(low, high);
  {% endif %}
}
{% endfor %}
{% endmacro %}
{% macro multiply() %}
{% for k in range(0, words, 2) %}
{
  {% for i in range(row_tiles) %}
  {% for p in range(parts) %}
  let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
    &x_tiles[row_block], {{ (p * block_rows + 16 * i) * stride + k }}u, {{ stride }}u);
  {% endfor %}
  {% endfor %}
  {% for j in range(column_tiles) %}
  {% for p in range(parts) %}
  let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
    &w_tiles[column_block], {{ (p * block_columns + 16 * j) * stride + k }}u, {{ stride }}u);
  {% endfor %}
  {% for l, r in ([(0, 0), (1, 0), (0, 1)] if parts == 2 else [(0, 0)]) %}
  {% for i in range(row_tiles) %}
  sum{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(left{{ i }}_{{ l }}, right{{ j }}_{{ r }}, sum{{ i }}_{{ j }});
  {% endfor %}
  {% endfor %}
  {% endfor %}
}
{% endfor %}
{% endmacro %}
{% include "matmul/call_matrix.wgsl" %}
{% include "matmul/store.wgsl" %}

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Of a step, a block for every row of subgroups, x [{{ parts }}, {{ block_rows }}, {{ depth }}], and one for every column of them, weights
// [{{ parts }}, {{ block_columns }}, {{ depth }}]. At the end, the sums of every subgroup.
var<workgroup> x_tiles: array<array<vec4<u32>, {{ parts * block_rows * stride }}>, {{ row_subgroups }}>;
var<workgroup> w_tiles: array<array<vec4<u32>, {{ parts * block_columns * stride }}>, {{ column_subgroups }}>;

@compute @workgroup_size({{ lanes }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  let tile_row = tile / params.column_tiles * {{ rows }}u;
  let tile_quad = tile % params.column_tiles * {{ columns // 4 }}u;
  if (tile_row >= params.m) {
    return;
  }
  // What this invocation stages: {{ x_loads }} vec4(s) of x as they are, and 8 weights along K in each of {{ w_loads }} column(s).
  // Rows past the edge are read from what lies behind them, columns past it are others'; neither are stored.
  let x_step = params.m * {{ parts * words }}u;
  let x_from = tile_row * {{ parts * words }}u + index;
  let x_row = index / {{ parts * words }}u;
  let x_block = x_row / {{ block_rows }}u;
  let x_to = (index / {{ words }}u % {{ parts }}u * {{ block_rows }}u + x_row % {{ block_rows }}u) * {{ stride }}u + index % {{ words }}u;
  {% for i in range(x_loads) %}
  var x{{ i }}: vec4<u32>;
  {% endfor %}
  let w_word = index / 4u % {{ words }}u;
  let w_column = index / {{ 4 * words }}u * 4u + index % 4u;
  let w_block = w_column / {{ block_columns }}u;
  let w_to = w_column % {{ block_columns }}u * {{ stride }}u + w_word;
  {% for i in range(w_loads) %}
  let w_quad{{ i }} = min(tile_quad + w_column / 4u + {{ i * pass_columns // 4 }}u, params.quads - 1u);
  let w_from{{ i }} = w_quad{{ i }} * params.units * 4u + w_column % 4u;
  let scales_from{{ i }} = w_quad{{ i }} * params.groups * 4u + w_column % 4u;
  let w_power{{ i }} = column_powers[w_quad{{ i }} * 4u + w_column % 4u];
  var w{{ i }}: Eight;
  {% endfor %}
  {% for i in range(row_tiles) %}
  {% for j in range(column_tiles) %}
  var sum{{ i }}_{{ j }} = Sum(0.0);
  {% endfor %}
  {% endfor %}

  let subgroup_row = subgroup / {{ column_subgroups }}u * {{ 16 * row_tiles }}u;
  let subgroup_column = subgroup % {{ column_subgroups }}u * {{ 16 * column_tiles }}u;
  let row_block = subgroup / {{ column_subgroups }}u;
  let column_block = subgroup % {{ column_subgroups }}u;
  {{ fetch("0u") | indent(2) }}
  {{ stage() | indent(2) }}
  workgroupBarrier();
  for (var step = 0u; step < params.steps; step++) {
    let next = min(step + 1u, params.steps - 1u);
    {{ fetch("next") | indent(4) }}
    {{ multiply() | indent(4) }}
    workgroupBarrier();
    {{ stage() | indent(4) }}
    workgroupBarrier();
  }

  {% include "matmul/gemm_matrix_finish.wgsl" %}
}
