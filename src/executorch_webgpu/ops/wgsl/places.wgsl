{#
Places of elements in a tensor [planes, D, H, W], for kernels whose invocations walk over consecutive elements.

Dims are (W, H, D). A step to the next element costs no division.
#}
struct Place {
  plane: u32,
  d: u32,
  h: u32,
  w: u32,
}

fn place_of(i: u32, dims: vec4<u32>) -> Place {
  let row = i / dims.x;
  let slice = row / dims.y;
  let plane = slice / dims.z;
  return Place(plane, slice - plane * dims.z, row - slice * dims.y, i - row * dims.x);
}

fn next_place(place: Place, dims: vec4<u32>) -> Place {
  var next = place;
  next.w += 1u;
  if (next.w == dims.x) {
    next.w = 0u;
    next.h += 1u;
    if (next.h == dims.y) {
      next.h = 0u;
      next.d += 1u;
      if (next.d == dims.z) {
        next.d = 0u;
        next.plane += 1u;
      }
    }
  }
  return next;
}
