{#
Of every row of sorted pairs the last one of the longest run of equal ranks; of runs as long, of the lowest rank.

A workgroup has a row.

Inputs:
  nan = True | False: whether the highest rank stands for NaN, of which none equals another
#}
@group(0) @binding(0) var<storage, read> pairs: array<vec2<u32>>;  // [rows, sorted]
@group(0) @binding(1) var<storage, read_write> out: array<vec2<u32>>;  // [rows]

struct Params {
  rows: u32,
  length: u32,
  sorted: u32,  // pairs of a row, of which the first `length` count
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 256;

var<workgroup> longest: array<vec2<u32>, wg_size>;  // length of a run, complement of its end

// Whether pair i is the last one of its run.
fn ends(start: u32, i: u32) -> bool {
  let rank = pairs[start + i].x;
  {% if nan %}
  if (rank == 0xffffffffu) {
    return true;
  }
  {% endif %}
  return i + 1u == params.length || pairs[start + i + 1u].x != rank;
}

// The length of the run that ends with pair i.
fn run_of(start: u32, i: u32) -> u32 {
  let rank = pairs[start + i].x;
  {% if nan %}
  if (rank == 0xffffffffu) {
    return 1u;
  }
  {% endif %}
  var low = 0u;
  var high = i;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (pairs[start + middle].x < rank) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return i + 1u - low;
}

fn longer(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return select(a, b, b.x > a.x || (b.x == a.x && b.y > a.y));
}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.sorted;
  var best = vec2<u32>(0u);
  for (var i = lane; i < params.length; i += wg_size) {
    if (ends(start, i)) {
      best = longer(best, vec2<u32>(run_of(start, i), ~i));
    }
  }
  longest[lane] = best;
  workgroupBarrier();
  for (var half = wg_size / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      longest[lane] = longer(longest[lane], longest[lane + half]);
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    out[row] = pairs[start + ~longest[0].y];
  }
}
