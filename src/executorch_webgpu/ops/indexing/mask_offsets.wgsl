{#
Turns counts into their exclusive prefix sums, in place. One workgroup does all, a tile at a time.
#}
@group(0) @binding(0) var<storage, read_write> counts: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;

struct Params {
  n: u32,
}

const TILE = 256u;
var<workgroup> sums: array<u32, TILE>;

@compute @workgroup_size(TILE)
fn main(@builtin(local_invocation_index) lane: u32) {
  var before = 0u;
  for (var first = 0u; first < params.n; first += TILE) {
    let i = first + lane;
    var count = 0u;
    if (i < params.n) {
      count = counts[i];
    }
    sums[lane] = count;
    workgroupBarrier();
    for (var step = 1u; step < TILE; step *= 2u) {
      var sum = sums[lane];
      if (lane >= step) {
        sum += sums[lane - step];
      }
      workgroupBarrier();
      sums[lane] = sum;
      workgroupBarrier();
    }
    if (i < params.n) {
      counts[i] = before + sums[lane] - count;
    }
    before += sums[TILE - 1u];
    workgroupBarrier();
  }
}
