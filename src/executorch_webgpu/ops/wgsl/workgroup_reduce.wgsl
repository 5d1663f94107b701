{#
Reductions over one workgroup of wg_size (a multiple of 8) invocations; every invocation gets the result.

Call them in uniform control flow only. Two levels instead of a tree cost two barriers, and a next call needs no third:
`partials` and `eighths` are written again only after all have read them. Of a large workgroup an eighth adds up eight each
before, which a compiler has unrolled: 32 in turn would take a GPU half a microsecond.
#}
override wg_size: u32 = 64;

var<workgroup> partials: array<f32, wg_size>;
var<workgroup> eighths: array<f32, 8>;

fn workgroup_sum(value: f32, lane: u32) -> f32 {
  return workgroup_reduce(value, lane, false);
}

fn workgroup_max(value: f32, lane: u32) -> f32 {
  return workgroup_reduce(value, lane, true);
}

fn sum_or_max(a: f32, b: f32, largest: bool) -> f32 {
  return select(a + b, max(a, b), largest);
}

fn workgroup_reduce(value: f32, lane: u32, largest: bool) -> f32 {
  partials[lane] = value;
  workgroupBarrier();
  var first = value;
  var count = wg_size;
  if (wg_size > 64u) {
    count = wg_size / 8u;
    if (lane < count) {
      for (var i = 1u; i < 8u; i++) {
        first = sum_or_max(first, partials[lane + i * count], largest);
      }
      partials[lane] = first;
    }
    workgroupBarrier();
  }
  if (lane < 8u) {
    var result = first;
    for (var i = lane + 8u; i < count; i += 8u) {
      result = sum_or_max(result, partials[i], largest);
    }
    eighths[lane] = result;
  }
  workgroupBarrier();
  var result = eighths[0];
  for (var i = 1u; i < 8u; i++) {
    result = sum_or_max(result, eighths[i], largest);
  }
  return result;
}
