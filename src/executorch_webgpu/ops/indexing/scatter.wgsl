{#
out = x with values put, added, … where addresses say. An invocation makes a few elements of out, each from its sources.

Sources of one element are taken in their order, so results repeat bit for bit.

Inputs:
  found = "walk" | "owner" | "sorted": whether sources are all looked at, in a table of the last one of each address, or
    a part of all in the order of their addresses
  reduce = "set" | "add" | "mul" | "mean" | "amax" | "amin": what is made of values; "set" takes the last one
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "bool" | "uint8" | "int8": of x, values and out
  lanes = 1 | 2 | 4: elements of that in a word
  include_self = True | False: whether x counts where there are sources
  in_place = False | True: whether out is x
  number = False | True: whether one number stands for all values
#}
{% set raw = reduce == "set" %}
{% set real = dtype in ("float32", "float16", "bfloat16") %}
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

struct Params {
  dims: array<vec4<u32>, 2>,  // of out, innermost first
  bounds: array<vec4<u32>, 2>,  // beyond which there are no sources
  address_strides: array<vec4<u32>, 2>,
  source_strides: array<vec4<u32>, 2>,  // where the first source of a line lies
  value_strides: array<vec4<u32>, 2>,
  rank: u32,
  n: u32,
  count: u32,  // sources of a line
  source_step: u32,
  value_step: u32,  // between the values of two sources
  together: u32,  // elements of an invocation that have the same sources
  lane_step: u32,  // between the values of two of these
  size: i32,  // addresses
  wraps: u32,
  number: u32,  // as it lies in a word
  alpha: {{ "f32" if real else "i32" }},  // what added values are multiplied by
}

override wg_size: u32 = 64;

const LANES = {{ lanes }}u;
const BITS = 32u / LANES;  // of an element
const MANY = {{ many }}u;  // elements of an invocation
{% include "wgsl/linear_index.wgsl" %}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/float_order.wgsl" %}
{% include "indexing/index.wgsl" %}
alias Number = {{ "u32" if raw else dtype ~ "_word" if lanes == 1 else "f32" if real else "i32" }};

struct Place {
  address: u32,
  source: u32,
  value: u32,
  inside: bool,
}

fn place(i: u32) -> Place {
  var rest = i;
  var at = Place(0u, 0u, 0u, true);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = rest - outer * size;
    at.address += coordinate * params.address_strides[d / 4u][d % 4u];
    at.source += coordinate * params.source_strides[d / 4u][d % 4u];
    at.value += coordinate * params.value_strides[d / 4u][d % 4u];
    at.inside = at.inside && coordinate < params.bounds[d / 4u][d % 4u];
    rest = outer;
  }
  return at;
}

fn element(bits: {{ word }}, i: u32) -> Number {
{% if raw %}
  return extractBits(bits, i % LANES * BITS, BITS);
{% else %}
  return element_{{ dtype }}(bits, i);
{% endif %}
}

fn value(i: u32) -> Number {
{% if number and raw %}
  return params.number;
{% elif number %}
  return element(bitcast<{{ word }}>(params.number), 0u);
{% else %}
  return element(values[i / LANES], i);
{% endif %}
}

fn own(unit: {{ unit }}, lane: u32) -> Number {
{% if raw %}
  return element(unit, lane);
{% else %}
  return unpack_{{ dtype }}(unit)[lane];
{% endif %}
}

{% if reduce in ("amax", "amin") %}
// Of two numbers, how they are ordered; NaN is what remains.
fn is_beyond(a: Number, b: Number) -> bool {
{% if real %}
  let ranks = vec2<u32>(rank_of(bitcast<u32>(a)), rank_of(bitcast<u32>(b)));
{% if reduce == "amax" %}
  return ranks.x > ranks.y;
{% else %}
  return ranks.x + 1u < ranks.y + 1u;
{% endif %}
{% else %}
  return a {{ ">" if reduce == "amax" else "<" }} b;
{% endif %}
}
{% endif %}

fn joined(a: Number, b: Number) -> Number {
{% if reduce in ("add", "mean") and dtype == "bool" %}
  return a | b;
{% elif reduce == "add" %}
  return a + {{ "" if dtype == "bool" else "params.alpha * " }}b;
{% elif reduce == "mean" %}
  return a + b;
{% elif reduce == "mul" %}
  return a * b;
{% elif raw %}
  return b;
{% else %}
  return select(a, b, is_beyond(b, a));
{% endif %}
}

{% if reduce == "mean" %}
fn divided(sum: Number, count: u32) -> Number {
{% if real %}
  return sum / f32(count);
{% elif dtype == "bool" %}
  return sum;
{% else %}
  let quotient = sum / i32(count);
  return select(quotient, quotient - 1, sum < quotient * i32(count));
{% endif %}
}
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
      results[group + lane] = element(x[(first + lane) / LANES], first + lane);
{% endif %}
    }
    var taken = {{ 1 if include_self else 0 }}u;
    if (at.inside) {
{% if found == "owner" %}
      let last = sources[at.address];
      if (last > 0) {
        let t = u32(last) - 1u;
{% elif found == "sorted" %}
      for (var p = first_source(at.address); p < params.count && sources[p].x == at.address; p++) {
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
          let next = value(at.value + t * params.value_step + lane * params.lane_step);
{% if raw %}
          results[group + lane] = next;
{% else %}
          let now = results[group + lane];
{% if reduce == "add" and dtype != "bool" %}
          results[group + lane] = joined(select(now, Number(0), taken == 0u), next);
{% else %}
          results[group + lane] = select(joined(now, next), next, taken == 0u);
{% endif %}
{% endif %}
        }
        taken++;
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
