{#
Where the indices of a bag begin, among params.count of them; the bag after the last one begins at their end.
#}
fn bag_start(bag: u32) -> u32 {
  if (bag >= params.offsets) {
    return params.count;
  }
  return u32(clamp(offsets[bag], 0, i32(params.count)));
}
