{#
Which row of a step a workgroup has to do with, and where that row stands: in which sequence, at which position.

Inputs:
  listed = False | True: whether workgroups take the single rows that attention/pieces lists, not all rows
#}
@group(0) @binding(7) var<storage, read> places: array<{{ "vec4<i32>" if listed else "vec2<i32>" }}>;  // [S] or a list

struct RowPlace {
  row: u32,
  position: u32,  // the largest number past the end of a list, so that the context is 0
  sequence: u32,
}

fn row_place(index: u32) -> RowPlace {
  {% if listed %}
  let place = places[1u + index];  // position, sequence, row
  return RowPlace(u32(place.z), select(0xffffffffu, u32(place.x), index < u32(places[0].x)), u32(place.y));
  {% else %}
  let place = places[index];
  return RowPlace(index, u32(place.x), u32(place.y));
  {% endif %}
}
