{#
Writes rows into x, in place, from a live row on. An invocation writes a unit, or a word of packed elements, of which
those that are not new stay.

Inputs:
  unit = "vec4<u32>" | "u32": the WGSL type of what is written
  lanes = 1 | 2 | 4: elements in it that may be new or not
#}
@group(0) @binding(0) var<storage, read> rows: array<{{ unit }}>;       // [batch, new row, element]
@group(0) @binding(1) var<storage, read_write> x: array<{{ unit }}>;    // [batch, row, element]
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(3) var<uniform> start: i32;

struct Params {
  batches: u32,
  words: u32,     // invocations of a batch
  n: u32,         // new elements of a batch
  row: u32,       // elements of a row
  capacity: u32,  // rows of a batch of x
}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  let batch = i / params.words;
  if (batch >= params.batches) {
    return;
  }
  let j = i % params.words;
  let first = (batch * params.capacity + u32(start)) * params.row;  // in x
  {% if lanes == 1 %}
  x[first + j] = rows[batch * params.n + j];
  {% else %}
  const LANES = {{ lanes }}u;
  const BITS = 32u / LANES;
  let word = first / LANES + j;
  if (word * LANES >= first + params.n) {
    return;
  }
  var bits = x[word];
  for (var lane = 0u; lane < LANES; lane++) {
    let to = word * LANES + lane;
    if (to < first || to >= first + params.n) {
      continue;
    }
    let source = batch * params.n + to - first;
    bits = insertBits(bits, extractBits(rows[source / LANES], source % LANES * BITS, BITS), lane * BITS, BITS);
  }
  x[word] = bits;
  {% endif %}
}
