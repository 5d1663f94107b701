{#
Places in a volume of depth, height and width, of which any may be 1, in row-major order.
#}
fn coordinates(i: u32, size: vec3<u32>) -> vec3<u32> {
  let row = i / size.z;
  return vec3<u32>(row / size.y, row % size.y, i % size.z);
}

fn place(at: vec3<u32>, size: vec3<u32>) -> u32 {
  return (at.x * size.y + at.y) * size.z + at.z;
}

// Whether signed coordinates are those of an element.
fn is_inside(at: vec3<i32>, size: vec3<u32>) -> bool {
  return all(vec3<u32>(at) < size);  // negative ones become large
}
