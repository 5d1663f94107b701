// Many rows of x times packed weights on tensor cores: subgroup matrices of 16 x 16, float16 with float32 sums.
//
// A workgroup computes {{ rows }} rows x {{ columns }} columns, a subgroup {{ 16 * row_tiles }} x {{ 16 * column_tiles }} of them.
// x comes from split_rows.wgsl; weights are dequantized once a step of {{ depth }} along K, scaled by a power of two for each
// column. {{ "Both are sums of two float16 numbers, and three of the four products are added: what is left out is below the
// rounding of float32." if parts == 2 else "Both are rounded to float16." }}
// While a step is multiplied, the next one is on the way to the other half of the workgroup's memory.
{% set lanes = 32 * row_subgroups * column_subgroups %}
{% set words = depth // 8 %}
{# Rows in workgroup memory are 16 bytes longer than they must be, so that those of a matrix lie in several banks. #}
{% set stride = words + 1 %}
{% set w_tile = parts * rows * stride %}
{% set buffer = parts * (rows + columns) * stride %}
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

// Twice: x [{{ parts }}, {{ rows }}, {{ depth }}], then weights [{{ parts }}, {{ columns }}, {{ depth }}]. At the end, sums.
var<workgroup> tiles: array<vec4<u32>, {{ 2 * buffer }}>;

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
  let x_to{{ i }} = (x_item{{ i }} / {{ words }}u % {{ parts }}u * {{ rows }}u + x_item{{ i }} / {{ parts * words }}u) * {{ stride }}u
    + x_item{{ i }} % {{ words }}u;
  var x{{ i }} = split[x_from{{ i }}];
  {% endfor %}
  {% for i in range(w_loads) %}
  let w_item{{ i }} = index + {{ i * lanes }}u;
  let w_column{{ i }} = w_item{{ i }} / {{ 4 * words }}u * 4u + w_item{{ i }} % 4u;
  let w_word{{ i }} = w_item{{ i }} / 4u % {{ words }}u;
  let w_to{{ i }} = {{ w_tile }}u + w_column{{ i }} * {{ stride }}u + w_word{{ i }};
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
  var to = 0u;
  for (var step = 0u; step < params.steps; step++) {
    {% for i in range(x_loads) %}
    {% set inside = (i + 1) * lanes <= x_items %}
    {{ "{" if inside else "if (x_item%d < %du) {" % (i, x_items) }}
      tiles[to + x_to{{ i }}] = x{{ i }};
    }
    {% endfor %}
    {% for i in range(w_loads) %}
    {% set inside = (i + 1) * lanes <= w_items %}
    {{ "{" if inside else "if (w_item%d < %du) {" % (i, w_items) }}
      let low = low_weights(w{{ i }}) * w_power{{ i }};
      let high = high_weights(w{{ i }}) * w_power{{ i }};
      {% if parts == 2 %}
      tiles[to + w_to{{ i }}] = halves(upper(low), upper(high));
      tiles[to + w_to{{ i }} + {{ columns * stride }}u] = halves(low - upper(low), high - upper(high));
      {% else %}
      tiles[to + w_to{{ i }}] = halves(low, high);
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
    let x_at = to + subgroup_row * {{ stride }}u;
    let w_at = to + {{ w_tile }}u + subgroup_column * {{ stride }}u;
    {% for k in range(0, words, 2) %}
    {
      {% for i in range(row_tiles) %}
      {% for p in range(parts) %}
      let left{{ i }}_{{ p }} = subgroupMatrixLoad<Left, row_major>(
        &tiles, x_at + {{ (p * rows + 16 * i) * stride + k }}u, {{ stride }}u);
      {% endfor %}
      {% endfor %}
      {% for j in range(column_tiles) %}
      {% for p in range(parts) %}
      let right{{ j }}_{{ p }} = subgroupMatrixLoad<Right, col_major>(
        &tiles, w_at + {{ (p * columns + 16 * j) * stride + k }}u, {{ stride }}u);
      {% endfor %}
      {% for l, r in ([(0, 0), (1, 0), (0, 1)] if parts == 2 else [(0, 0)]) %}
      {% for i in range(row_tiles) %}
      sum{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(left{{ i }}_{{ l }}, right{{ j }}_{{ r }}, sum{{ i }}_{{ j }});
      {% endfor %}
      {% endfor %}
      {% endfor %}
    }
    {% endfor %}
    to = {{ buffer }}u - to;
  }

  {% include "matmul/gemm_matrix_finish.wgsl" %}
}
