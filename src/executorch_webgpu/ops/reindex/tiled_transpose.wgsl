{#
Copies a strided view of x to a strided view of out whose innermost dimension is another one than that of x.

A workgroup moves a tile of both dimensions through its memory, so that it reads and writes runs.
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  dims: array<vec4<u32>, 2>,  // of all other dimensions, innermost first
  x_strides: array<vec4<i32>, 2>,
  out_strides: array<vec4<i32>, 2>,
  rank: u32,
  groups: u32,
  width: u32,   // of the innermost dimension of out
  height: u32,  // of that of x
  x_step: i32,  // in x, along the innermost dimension of out
  out_step: i32,
  x_base: i32,
  out_base: i32,
}

const TILE = 32u;
const ROWS = 8u;  // of a tile that the workgroup moves at once
var<workgroup> tile: array<u32, TILE * (TILE + 1u)>;  // a column more, so that columns lie in different banks

@compute @workgroup_size(TILE, ROWS)
fn main(
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let g = group.x + group.y * groups.x;
  if (g >= params.groups) {
    return;
  }
  let across = (params.width + TILE - 1u) / TILE;
  let down = (params.height + TILE - 1u) / TILE;
  let first = vec2<u32>(g % across, g / across % down) * TILE;
  var rest = g / across / down;
  var base = vec2<i32>(params.x_base, params.out_base);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = i32(rest - outer * size);
    base += coordinate * vec2<i32>(params.x_strides[d / 4u][d % 4u], params.out_strides[d / 4u][d % 4u]);
    rest = outer;
  }
  for (var row = local.y; row < TILE; row += ROWS) {
    let at = first + vec2<u32>(row, local.x);
    if (at.x < params.width && at.y < params.height) {
      tile[row * (TILE + 1u) + local.x] = x[base.x + i32(at.x) * params.x_step + i32(at.y)];
    }
  }
  workgroupBarrier();
  for (var row = local.y; row < TILE; row += ROWS) {
    let at = first + vec2<u32>(local.x, row);
    if (at.x < params.width && at.y < params.height) {
      out[base.y + i32(at.x) + i32(at.y) * params.out_step] = tile[local.x * (TILE + 1u) + row];
    }
  }
}
