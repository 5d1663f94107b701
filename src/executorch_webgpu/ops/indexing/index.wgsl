{#
Indices into a dimension: negative ones may count from its end, and those outside of it are moved to its nearest element.
#}
fn in_range(index: i32, size: i32, wraps: u32) -> i32 {
  return clamp(select(index, index + size, index < 0 && wraps != 0u), 0, size - 1);
}
