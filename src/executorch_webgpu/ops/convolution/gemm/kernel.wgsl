{#
Convolution as a product of matrices: weights [rows, K] times what lies under the kernel at each place, [K, columns].

A workgroup of row_lanes x 256 / row_lanes invocations computes a tile of output channels at places of all images, an
invocation 4 * row_quads channels at 4 * column_quads places, a step along K at a time. What lies under the
kernel is gathered on the way to workgroup memory; while a step is multiplied, the next one is on the way to registers.
K is that of an element of the kernel after the other, of each the input channels. Where there are few tiles, several
workgroups share one, each with a part of K, and the kernel `sum` adds theirs up.

Inputs:
  row_lanes = 16 | 8: invocations along the channels of a tile
  row_quads = 2 | 1: fours of channels of an invocation
  column_quads = 2 | 1: fours of places of an invocation
  depth = 16 | 32: of a step along K
  walk = "quads" | "channels" | "any": the kernel has one element, and four places at a time are read and written as they
    are; steps stay within an element of the kernel; or a table says what each of K reads
  x_dtype = "float32" | "float16": of x
  weights_dtype = "float32" | "float16": of the weights
  out_dtype = "float32" | "float16": of out; float32, unless places are written in fours
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
{% set quads = walk == "quads" %}
{% set half_x = x_dtype == "float16" %}
{% set x_type = ("vec2<u32>" if half_x else "vec4<f32>") if quads else ("u32" if half_x else "f32") %}
{% set out_type = ("vec2<u32>" if out_dtype == "float16" else "vec4<f32>") if quads else "f32" %}
@group(0) @binding(0) var<storage, read> x: array<{{ x_type }}>;  // [batch, groups, group_in, in_size]
// [groups, k_rows, row_stride]: fours of neighbouring output channels
@group(0) @binding(1) var<storage, read> weights: array<{{ "vec4<f32>" if weights_dtype == "float32" else "vec2<u32>" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<{{ out_type }}>;  // [splits, batch, groups, rows, out_size]
{% include "convolution/output.wgsl" %}
{% if walk == "any" %}
@group(0) @binding(5) var<storage, read> table: array<vec4<i32>>;  // [K]: input channel; depth, height and width from the first one
{% endif %}

struct Params {
  in_size: vec4<u32>,  // depth, height, width and their product; so are the next two
  out_size: vec4<u32>,
  kernel: vec4<u32>,
  stride: vec4<u32>,  // depth, height, width; so are the next two
  padding: vec4<i32>,
  dilation: vec4<i32>,
  groups: u32,
  group_in: u32,      // input channels of a group
  rows: u32,          // output channels of a group
  k: u32,             // input channels times elements of the kernel
  k_rows: u32,        // rows of weights of a group: k, or more
  row_stride: u32,    // fours in a row of weights
  columns: u32,       // places of all images
  row_tiles: u32,     // workgroups over the channels of a group
  column_tiles: u32,  // workgroups over the columns
  tiles: u32,         // workgroups of all groups, but for splits
  steps: u32,         // along K, of a workgroup
  splits: u32,
  split_size: u32,    // elements of out from a split to the next, whole fours
  finishes: u32,      // 0: bias and bounds come later
  low: f32,
  high: f32,
}
@group(0) @binding(4) var<uniform> params: Params;

{% set column_lanes = 256 // row_lanes %}
{% set x_quads = column_lanes * column_quads %}
{% set w_quads = row_lanes * row_quads %}
{% set x_lanes = x_quads if quads else 4 * x_quads %}
{% set x_loads = depth * x_lanes // 256 %}
{% set all_stage = depth * w_quads >= 256 %}
{% set w_loads = depth * w_quads // 256 if all_stage else 1 %}
const ROW_LANES = {{ row_lanes }}u;
const COLUMN_LANES = {{ column_lanes }}u;
const DEPTH = {{ depth }}u;
const X_QUADS = {{ x_quads }}u;  // fours of columns of the tile
const W_QUADS = {{ w_quads }}u;  // fours of channels
const X_LANES = {{ x_lanes }}u;  // invocations that stage a row of x; all together stage some rows at a time
const X_ROWS = 256u / X_LANES;
const W_ROWS = 256u / W_QUADS;

// [k, columns]. Single places are no parts of vectors here: to write one could write all four.
{% if quads %}
var<workgroup> x_tile: array<vec4<f32>, DEPTH * X_QUADS>;
{% else %}
var<workgroup> x_tile: array<f32, DEPTH * 4u * X_QUADS>;
{% endif %}
var<workgroup> w_tile: array<vec4<f32>, DEPTH * W_QUADS>;  // [k, fours of channels]

{% include "wgsl/volume.wgsl" %}

{% if quads %}
fn load_x(at: u32) -> vec4<f32> {
  let found = x[at / 4u];
  {% if half_x %}
  return vec4<f32>(unpack2x16float(found.x), unpack2x16float(found.y));
  {% else %}
  return found;
  {% endif %}
}
{% else %}
fn load_x(at: u32) -> f32 {
  {% if half_x %}
  return unpack2x16float(x[at / 2u])[at % 2u];
  {% else %}
  return x[at];
  {% endif %}
}
{% endif %}

fn load_weights(at: u32) -> vec4<f32> {
  let found = weights[at];
  {% if weights_dtype == "float32" %}
  return found;
  {% else %}
  return vec4<f32>(unpack2x16float(found.x), unpack2x16float(found.y));
  {% endif %}
}

// Of the places of an invocation, the column in the tile; the four of a quad are neighbours, or as far apart as there are
// invocations side by side, so that neighbouring ones write neighbours.
fn column_of(quad: u32, c: u32, lane: u32) -> u32 {
  {% if quads %}
  return (quad * COLUMN_LANES + lane) * 4u + c;
  {% else %}
  return (quad * 4u + c) * COLUMN_LANES + lane;
  {% endif %}
}

@compute @workgroup_size(COLUMN_LANES, ROW_LANES)
fn main(
  @builtin(workgroup_id) group_id: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let item = group_id.x + group_id.y * groups.x;
  if (item >= params.tiles * params.splits) {
    return;
  }
  let split = item / params.tiles;
  let tile = item % params.tiles;
  let first_row = tile % params.row_tiles * (4u * W_QUADS);
  let first_column = tile / params.row_tiles % params.column_tiles * (4u * X_QUADS);
  let group = tile / params.row_tiles / params.column_tiles;

  // ---- what an invocation stages: rows of x at one place, or at a quad of them, and of weights in one quad ----
  // Columns past the edge repeat the last one, fours of channels past it too; neither are stored.
  let x_row = index / X_LANES;
  {% if quads %}
  let x_column = min(first_column + index % X_LANES * 4u, params.columns - 4u);
  {% else %}
  let x_column = min(first_column + index % X_LANES, params.columns - 1u);
  {% endif %}
  let image = x_column / params.out_size.w;
  let image_from = (image * params.groups + group) * params.group_in * params.in_size.w;
  {% if quads %}
  let x_from = image_from + x_column % params.out_size.w;
  {% else %}
  let out_at = vec3<i32>(coordinates(x_column % params.out_size.w, params.out_size.xyz));
  let window_at = out_at * vec3<i32>(params.stride.xyz) - params.padding.xyz;
  {% endif %}
  let w_row = index / W_QUADS;
  {% if not all_stage %}
  let stages_w = w_row < DEPTH;
  {% endif %}
  let w_from = group * params.k_rows * params.row_stride + min(first_row / 4u + index % W_QUADS, params.row_stride - 1u);

  {% for i in range(x_loads) %}
  var x{{ i }}: {{ "vec4<f32>" if quads else "f32" }};
  {% endfor %}
  {% for i in range(w_loads) %}
  var w{{ i }}: vec4<f32>;
  {% endfor %}
  {% for r in range(4 * row_quads) %}
  {% for j in range(column_quads) %}
  var sum{{ r }}_{{ j }} = vec4<f32>();
  {% endfor %}
  {% endfor %}

  // ---- a step, on the way to registers ----
  let first = split * params.steps * DEPTH;
  let end = min(first + params.steps * DEPTH, params.k);
  var next = first;
  {% if walk == "channels" %}
  var tap = first / params.group_in;
  var channel = first % params.group_in;
  var read = window_at + vec3<i32>(coordinates(tap, params.kernel.xyz)) * params.dilation.xyz;
  var inside = is_inside(read, params.in_size.xyz);
  var x_from = image_from + select(0u, place(vec3<u32>(read), params.in_size.xyz), inside);
  {% endif %}
  {% macro fetch() %}
  {% for i in range(x_loads) %}
  {
    let row = x_row + {{ i }}u * X_ROWS;
    {% if walk == "any" %}
    let entry = table[min(next + row, params.k - 1u)];
    let read = window_at + entry.yzw;
    let inside = is_inside(read, params.in_size.xyz) && next + row < params.k;
    let at = image_from + u32(entry.x) * params.in_size.w + place(vec3<u32>(read), params.in_size.xyz);
    x{{ i }} = select(0.0, load_x(select(0u, at, inside)), inside);
    {% elif walk == "channels" %}
    let x_channel = min(channel + row, params.group_in - 1u);
    x{{ i }} = select(0.0, load_x(x_from + x_channel * params.in_size.w), inside && channel + row < params.group_in);
    {% else %}
    let x_channel = min(next + row, params.group_in - 1u);
    x{{ i }} = select(vec4<f32>(), load_x(x_from + x_channel * params.in_size.w), next + row < params.group_in);
    {% endif %}
  }
  {% endfor %}
  {% for i in range(w_loads) %}
  {% if all_stage %}
  w{{ i }} = load_weights(w_from + (next + w_row + {{ i }}u * W_ROWS) * params.row_stride);
  {% else %}
  w{{ i }} = load_weights(w_from + (next + min(w_row, DEPTH - 1u)) * params.row_stride);
  {% endif %}
  {% endfor %}
  next += DEPTH;
  {% if walk == "channels" %}
  channel += DEPTH;
  if (channel >= params.group_in) {
    channel = 0u;
    tap++;
    read = window_at + vec3<i32>(coordinates(tap, params.kernel.xyz)) * params.dilation.xyz;
    inside = is_inside(read, params.in_size.xyz);
    x_from = image_from + select(0u, place(vec3<u32>(read), params.in_size.xyz), inside);
  }
  {% endif %}
  {% endmacro %}
  // ---- what was fetched, to workgroup memory ----
  {% macro stage() %}
  {% for i in range(x_loads) %}
  x_tile[(x_row + {{ i }}u * X_ROWS) * X_LANES + index % X_LANES] = x{{ i }};
  {% endfor %}
  {% for i in range(w_loads) %}
  {% if not all_stage %}
  if (stages_w) {
    w_tile[w_row * W_QUADS + index % W_QUADS] = w{{ i }};
  }
  {% else %}
  w_tile[(w_row + {{ i }}u * W_ROWS) * W_QUADS + index % W_QUADS] = w{{ i }};
  {% endif %}
  {% endfor %}
  {% endmacro %}
  {{ fetch() }}
  {{ stage() }}
  workgroupBarrier();
  for (var step = first; step < end; step += DEPTH) {
    let more = step + DEPTH < end;
    if (more) {
      {{ fetch() | indent(4) }}
    }

    // ---- products of the step ----
    for (var k = 0u; k < DEPTH; k++) {
      {% for i in range(row_quads) %}
      let a{{ i }} = w_tile[k * W_QUADS + local.y + {{ row_lanes * i }}u];
      {% endfor %}
      {% for j in range(column_quads) %}
      {% if quads %}
      let b{{ j }} = x_tile[k * X_QUADS + local.x + {{ column_lanes * j }}u];
      {% else %}
      let at{{ j }} = k * X_LANES + local.x + {{ 4 * column_lanes * j }}u;
      let b{{ j }} = vec4<f32>(
        x_tile[at{{ j }}], x_tile[at{{ j }} + COLUMN_LANES],
        x_tile[at{{ j }} + 2u * COLUMN_LANES], x_tile[at{{ j }} + 3u * COLUMN_LANES],
      );
      {% endif %}
      {% endfor %}
      {% for r in range(4 * row_quads) %}
      {% for j in range(column_quads) %}
      sum{{ r }}_{{ j }} += a{{ r // 4 }}[{{ r % 4 }}] * b{{ j }};
      {% endfor %}
      {% endfor %}
    }
    workgroupBarrier();
    if (more) {
      {{ stage() | indent(4) }}
    }
    workgroupBarrier();
  }

  // ---- output: sums as they are where others are to be added ----
  let channels = params.groups * params.rows;
  let plane = params.out_size.w;
  {% for j in range(column_quads) %}
  {% for c in range(1 if quads else 4) %}
  {
    let column = first_column + column_of({{ j }}u, {{ c }}u, local.x);
    let to = split * params.split_size + (column / plane * channels + group * params.rows) * plane + column % plane;
    if (column < params.columns) {
      {% for r in range(4 * row_quads) %}
      {
        let row = first_row + local.y * 4u + {{ r // 4 * 4 * row_lanes + r % 4 }}u;
        if (row < params.rows) {
          {% if quads %}
          var value = sum{{ r }}_{{ j }};
          if (params.finishes == 1u) {
            for (var i = 0u; i < 4u; i++) {
              value[i] = finished(value[i], group * params.rows + row, params.low, params.high);
            }
          }
          {% if out_dtype == "float16" %}
          out[(to + row * plane) / 4u] = vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));
          {% else %}
          out[(to + row * plane) / 4u] = value;
          {% endif %}
          {% else %}
          var value = sum{{ r }}_{{ j }}[{{ c }}];
          if (params.finishes == 1u) {
            value = finished(value, group * params.rows + row, params.low, params.high);
          }
          out[to + row * plane] = value;
          {% endif %}
        }
      }
      {% endfor %}
    }
  }
  {% endfor %}
  {% endfor %}
}
