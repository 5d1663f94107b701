{#
The flat invocation index of a grid made by Planner.grid_1d, which folds long grids into y.
#}
// `size` is that of a workgroup.
fn linear_index(gid: vec3<u32>, groups: vec3<u32>, size: u32) -> u32 {
  return gid.x + gid.y * groups.x * size;
}
