// Many rows of x times packed weights on tensor cores: subgroup matrices of 16 x 16, float16 with float32 sums.
//
// A workgroup computes {{ rows }} rows x {{ columns }} columns, a subgroup {{ 16 * row_tiles }} x {{ 16 * column_tiles }} of them.
// x comes from split_rows.wgsl; weights are dequantized once a step of {{ depth }} along K, scaled by a power of two for each
// column. {{ "Both are sums of two float16 numbers, and three of the four products are added: what is left out is below the
// rounding of float32." if parts == 2 else "Both are rounded to float16." }}
// While a step is multiplied, the next one is on the way to the other half of the workgroup's memory. Matrices lie at
// constant offsets of an inner array, because Tint guards those at other offsets by a branch each.
{% set lanes = 32 * row_subgroups * column_subgroups %}
{% set words = depth // 8 %}
{# Rows in workgroup memory are 16 bytes longer than they must be, so that those of a matrix lie in several banks. #}
{% set stride = words + 1 %}
{% set block_rows = 16 * row_tiles %}
{% set block_columns = 16 * column_tiles %}
{% set x_items = rows * parts * words %}
{% set x_loads = (x_items + lanes - 1) // lanes %}
{% set w_items = columns * words %}
{% set w_loads = (w_items + lanes - 1) // lanes %}
{% set word_units = 8 // per_unit %}
{% include "matmul/call_matrix.wgsl" %}
{% include "matmul/store.wgsl" %}

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// Two steps, each with a block for every row of subgroups, x [{{ parts }}, {{ block_rows }}, {{ depth }}], and one for every column of them, weights
// [{{ parts }}, {{ block_columns }}, {{ depth }}]. At the end, the sums of every subgroup.
var<workgroup> x_tiles: array<array<vec4<u32>, {{ parts * block_rows * stride }}>, {{ 2 * row_subgroups }}>;
var<workgroup> w_tiles: array<array<vec4<u32>, {{ parts * block_columns * stride }}>, {{ 2 * column_subgroups }}>;

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
  // Rows and columns past the edge are others' and are not stored.
  let x_step = params.m * {{ parts * words }}u;
  {% for i in range(x_loads) %}
  let x_item{{ i }} = index + {{ i * lanes }}u;
  let x_from{{ i }} = min(tile_row * {{ parts * words }}u + x_item{{ i }}, x_step - 1u);
  let x_row{{ i }} = x_item{{ i }} / {{ parts * words }}u;
  let x_to{{ i }} = (x_item{{ i }} / {{ words }}u % {{ parts }}u * {{ block_rows }}u + x_row{{ i }} % {{ block_rows }}u) * {{ stride }}u
    + x_item{{ i }} % {{ words }}u;
  var x{{ i }} = split[x_from{{ i }}];
  {% endfor %}
  {% for i in range(w_loads) %}
  let w_item{{ i }} = index + {{ i * lanes }}u;
  let w_column{{ i }} = w_item{{ i }} / {{ 4 * words }}u * 4u + w_item{{ i }} % 4u;
  let w_word{{ i }} = w_item{{ i }} / 4u % {{ words }}u;
  let w_to{{ i }} = w_column{{ i }} % {{ block_columns }}u * {{ stride }}u + w_word{{ i }};
  let w_quad{{ i }} = min(tile_quad + w_column{{ i }} / 4u, params.quads - 1u);
  let w_power{{ i }} = column_powers[w_quad{{ i }} * 4u + w_column{{ i }} % 4u];
  var w{{ i }} = load_weights(w_quad{{ i }}, w_column{{ i }} % 4u, w_word{{ i }});
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
  for (var step = 0u; step < params.steps; step++) {
    let x_blocks = step % 2u * {{ row_subgroups }}u;
    let w_blocks = step % 2u * {{ column_subgroups }}u;
    {% for i in range(x_loads) %}
    {% set inside = (i + 1) * lanes <= x_items %}
    {{ "{" if inside else "if (x_item%d < %du) {" % (i, x_items) }}
      x_tiles[x_blocks + x_row{{ i }} / {{ block_rows }}u][x_to{{ i }}] = x{{ i }};
    }
    {% endfor %}
    {% for i in range(w_loads) %}
    {% set inside = (i + 1) * lanes <= w_items %}
    {{ "{" if inside else "if (w_item%d < %du) {" % (i, w_items) }}
      let low = low_weights(w{{ i }}) * w_power{{ i }};
      let high = high_weights(w{{ i }}) * w_power{{ i }};
      let block = w_blocks + w_column{{ i }} / {{ block_columns }}u;
      {% if parts == 2 %}
      w_tiles[block][w_to{{ i }}] = halves(upper(low), upper(high));
      w_tiles[block][w_to{{ i }} + {{ block_columns * stride }}u] = halves(low - upper(low), high - upper(high));
      {% else %}
      w_tiles[block][w_to{{ i }}] = halves(low, high);
      {% endif %}
    }
    {% endfor %}
    workgroupBarrier();
    let next = min(step + 1u, params.steps - 1u);
    {% for i in range(x_loads) %}
    x{{ i }} = split[next * x_step + x_from{{ i }}];
    {% endfor %}
    {% for i in range(w_loads) %}
    w{{ i }} = load_weights(w_quad{{ i }}, w_column{{ i }} % 4u, next * {{ words }}u + w_word{{ i }});
    {% endfor %}
    {% for k in range(0, words, 2) %}
    {
      {% for i in range(row_tiles) %}
      {% for p in range(parts) %}
      let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
        &x_tiles[x_blocks + row_block], {{ (p * block_rows + 16 * i) * stride + k }}u, {{ stride }}u);
      {% endfor %}
      {% endfor %}
      {% for j in range(column_tiles) %}
      {% for p in range(parts) %}
      let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
        &w_tiles[w_blocks + column_block], {{ (p * block_columns + 16 * j) * stride + k }}u, {{ stride }}u);
      {% endfor %}
      {% for l, r in ([(0, 0), (1, 0), (0, 1)] if parts == 2 else [(0, 0)]) %}
      {% for i in range(row_tiles) %}
      sum{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(left{{ i }}_{{ l }}, right{{ j }}_{{ r }}, sum{{ i }}_{{ j }});
      {% endfor %}
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
  }

  {% include "matmul/gemm_matrix_finish.wgsl" %}
}
