{#
out = x with values put, added, … where addresses say. An invocation makes a few elements of out, each from its sources.

Sources of one element are taken in their order, so results repeat bit for bit.

Inputs:
  found = "walk" | "owner" | "sorted": whether sources are all looked at, in a table of the last one of each address, or
    a part of all in the order of their addresses
  reduce = "set" | "add" | "mul" | "mean" | "amax" | "amin": what is made of values; "set" takes the last one
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": of x, values and out
  lanes = 1 | 2 | 4: elements of that in a word
  include_self = True | False: whether x counts where there are sources
  in_place = False | True: whether out is x
  number = False | True: whether one number stands for all values
#}
{% set raw = reduce == "set" %}
{% set totals = found == "sorted" and not raw %}
{% set many = lanes if raw else 4 %}
{% set unit = "u32" if raw else dtype ~ "_quad" %}
{% set word = "u32" if raw else dtype ~ "_word" %}
@group(0) @binding(0) var<storage, read_write> out: array<{{ unit }}>;
{% if not in_place %}
@group(0) @binding(1) var<storage, read> x: array<{{ word }}>;
{% endif %}
@group(0) @binding(2) var<storage, read> {{ "sources: array<vec2<u32>>" if found == "sorted" else "sources: array<i32>" }};
{% if not number %}
@group(0) @binding(3) var<storage, read> values: array<{{ word }}>;
{% endif %}
@group(0) @binding(4) var<uniform> params: Params;
{% if totals %}
@group(0) @binding(5) var<storage, read> totals: array<{{ "u32" if dtype == "bool" else "f32" if "float" in dtype else "i32" }}>;
{% endif %}

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  bounds: array<vec4<u32>, 2>,  // beyond which there are no sources
  address_strides: array<vec4<u32>, 2>,
  source_strides: array<vec4<u32>, 2>,  // where the first source of a line lies
  value_strides: array<vec4<u32>, 2>,
  line_strides: array<vec4<u32>, 2>,  // which line it is: elements of one line have the same sources
  rank: u32,
  n: u32,
  lines: u32,
  count: u32,  // sources of a line
  source_step: u32,
  value_step: u32,  // between the values of two sources
  together: u32,  // elements of an invocation that have the same sources
  lane_step: u32,  // between the values of two of these
  size: i32,  // addresses
  wraps: u32,
  number: u32,  // as it lies in a word
  alpha: {{ "i32" if "float" not in dtype else "f32" }},  // what added values are multiplied by
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
const MANY = {{ many }}u;  // elements of an invocation
{% include "wgsl/linear_index.wgsl" %}
{% include "indexing/index.wgsl" %}
{% include "indexing/reduction.wgsl" %}

struct Place {
  address: u32,
  source: u32,
  value: u32,
  line: u32,
  inside: bool,
}

fn place(i: u32) -> Place {
  var rest = i;
  var at = Place(0u, 0u, 0u, 0u, true);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    at.address += coordinate * params.address_strides[d / 4u][d % 4u];
    at.source += coordinate * params.source_strides[d / 4u][d % 4u];
    at.value += coordinate * params.value_strides[d / 4u][d % 4u];
    at.line += coordinate * params.line_strides[d / 4u][d % 4u];
    at.inside = at.inside && coordinate < params.bounds[d / 4u][d % 4u];
    rest = outer;
  }
  return at;
}

fn value(i: u32) -> Number {
{% if number and raw %}
  let found = params.number;
{% elif number %}
  let found = element(bitcast<{{ word }}>(params.number), 0u, LANES);
{% else %}
  let found = element(values[i / LANES], i, LANES);
{% endif %}
  return found{{ " * params.alpha" if reduce == "add" and dtype != "bool" }};
}

fn own(unit: {{ unit }}, lane: u32) -> Number {
{% if raw %}
  return element(unit, lane, LANES);
{% else %}
  return unpack_{{ dtype }}(unit)[lane];
{% endif %}
}

{% if reduce == "mean" %}
fn divided(sum: Number, count: u32) -> Number {
{% if "float" in dtype %}
  return sum / f32(count);
{% elif dtype == "bool" %}
  return sum;
{% else %}
  // Both wrap as elements do, and quotients are rounded down.
  let a = wrapped(sum);
  let n = wrapped(i32(count));
  let b = select(n, 1, n == 0);
  let quotient = a / b;
  return select(quotient, quotient - 1, quotient * b != a && (a < 0) != (b < 0));
{% endif %}
}

{% if "int" in dtype %}
fn wrapped(n: i32) -> i32 {
{% if dtype == "uint8" %}
  return n & 0xff;
{% else %}
  return extractBits(n, 0u, BITS);
{% endif %}
}
{% endif %}
{% endif %}

{% if found == "sorted" %}
// The first of the sources with an address of at least this one.
fn first_source(address: u32) -> u32 {
  var low = 0u;
  var high = params.count;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (sources[middle].x < address) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return low;
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i * MANY >= params.n) {
    return;
  }
  var results: array<Number, MANY>;
{% if in_place %}
  let before = out[i];
{% endif %}
  for (var group = 0u; group < MANY; group += params.together) {
    let first = min(i * MANY + group, params.n - 1u);
    let at = place(first);
    for (var lane = 0u; lane < params.together; lane++) {
{% if in_place %}
      results[group + lane] = own(before, group + lane);
{% else %}
      results[group + lane] = element(x[(first + lane) / LANES], first + lane, LANES);
{% endif %}
    }
    var taken = {{ 1 if include_self else 0 }}u;
    if (at.inside) {
{% if found == "owner" %}
      let last = sources[at.address];
      if (last > 0) {
        let t = u32(last) - 1u;
{% elif found == "sorted" and raw %}
      let end = first_source(at.address + 1u);
      if (end > 0u && sources[max(end, 1u) - 1u].x == at.address) {
        let t = sources[end - 1u].y;
{% elif found == "sorted" %}
      let end = first_source(at.address + 1u);
      var p = first_source(at.address);
      while (p < end) {
        let whole = p % CHUNK == 0u && p + CHUNK <= end;
        let t = sources[p].y;
{% elif raw %}
      for (var t = params.count - 1u; t < params.count; t--) {  // past 0 it is large
        if (in_range(sources[at.source + t * params.source_step], params.size, params.wraps) != i32(at.address)) {
          continue;
        }
{% else %}
      for (var t = 0u; t < params.count; t++) {
        if (in_range(sources[at.source + t * params.source_step], params.size, params.wraps) != i32(at.address)) {
          continue;
        }
{% endif %}
        for (var lane = 0u; lane < params.together; lane++) {
          var next = value(at.value + t * params.value_step + lane * params.lane_step);
{% if totals %}
          if (whole) {
            next = totals[p / CHUNK * params.lines + at.line + lane];
          }
{% endif %}
{% if raw %}
          results[group + lane] = next;
{% else %}
          results[group + lane] = select(joined(results[group + lane], next), next, taken == 0u);
{% endif %}
        }
{% if totals %}
        let step = select(1u, CHUNK, whole);
        p += step;
        taken += step;
{% else %}
        taken++;
{% endif %}
{% if raw and found == "walk" %}
        break;
{% endif %}
      }
    }
{% if reduce == "mean" %}
    for (var lane = 0u; lane < params.together; lane++) {
      results[group + lane] = divided(results[group + lane], max(taken, 1u));
    }
{% endif %}
  }
{% if raw %}
  var word = 0u;
  for (var lane = 0u; lane < MANY; lane++) {
    word = insertBits(word, results[lane], lane * BITS, BITS);
  }
  out[i] = word;
{% else %}
  out[i] = pack_{{ dtype }}({{ dtype }}_numbers(results[0], results[1], results[2], results[3]));
{% endif %}
}
