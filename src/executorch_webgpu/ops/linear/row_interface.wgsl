// What the routes by rows of b take: one plan call serves either.
@group(0) @binding(0) var<storage, read> a: array<{{ element }}>;  // [m, k]
@group(0) @binding(1) var<storage, read> b: array<{{ element }}>;  // [n, k]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [m, n]
{% if bias %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;
{% endif %}

struct Params {
  m: u32,
  n: u32,
  units: u32,         // {{ element }}s in a row of a and b
  bias_column: u32,   // stride of bias; 0 where it repeats
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
}
@group(0) @binding(4) var<uniform> params: Params;
