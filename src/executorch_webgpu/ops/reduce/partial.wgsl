{#
What a reduction keeps of the elements that it has seen, its partial; partials combine in any order to the same kind.

Inputs:
  kind = "largest" | "smallest" | "last_largest" | "last_smallest" | "max" | "min" | "sum" | "product" | "any" | "all"
    | "var" | "lse": what is computed; the first four know where an extreme is, too, the first place or the last one;
    "lse" is log(sum(exp(x)))
  compute = "f32" | "i32": the type of the numbers that are reduced, and of a sum
#}
alias Number = {{ compute }};
{% set places = ("largest", "smallest", "last_largest", "last_smallest") %}
{% set least = kind in ("min", "smallest", "last_smallest") %}
{% set last = kind in ("last_largest", "last_smallest") %}
{% if kind in places or kind in ("max", "min") %}
// ---- extremes, by ranks: integers in the order of the numbers, or, for the least, in the opposite one ----
  {% if compute == "f32" %}
{% include "wgsl/float_order.wgsl" %}

const SIGN = {{ "0x80000000u" if least else "0u" }};  // what turns a number over

fn rank_of_number(v: f32) -> u32 {
  return rank_of(bitcast<u32>(v) ^ SIGN);
}

fn number_of_rank(rank: u32) -> f32 {
  let bits = bits_of(rank);
  return bitcast<f32>(select(bits ^ SIGN, bits, bits == 0u));
}
  {% else %}
const FLIP = {{ "0x7fffffffu" if least else "0x80000000u" }};

fn rank_of_number(v: i32) -> u32 {
  return bitcast<u32>(v) ^ FLIP;
}

fn number_of_rank(rank: u32) -> i32 {
  return bitcast<i32>(rank ^ FLIP);
}
  {% endif %}
{% endif %}

{% if kind in places %}
alias Partial = vec2<u32>;  // a rank, and an index; complemented where the last index counts

fn nothing() -> Partial {
  return Partial(0u, 0xffffffffu);
}

fn partial_of(v: Number, i: u32) -> Partial {
  return Partial(rank_of_number(v), {{ "~i" if last else "i" }});
}

fn combine(a: Partial, b: Partial) -> Partial {
  return select(a, b, (b.x > a.x) | ((b.x == a.x) & (b.y < a.y)));  // without branches
}

fn result_of(partial: Partial, p: f32) -> Number {
  return number_of_rank(partial.x);
}

fn second_of(partial: Partial) -> i32 {
  return i32({{ "~partial.y" if last else "partial.y" }});
}
{% elif kind in ("max", "min") %}
alias Partial = u32;

fn nothing() -> Partial {
  return 0u;
}

fn partial_of(v: Number, i: u32) -> Partial {
  return rank_of_number(v);
}

fn combine(a: Partial, b: Partial) -> Partial {
  return max(a, b);
}

fn result_of(partial: Partial, p: f32) -> Number {
  return number_of_rank(partial);
}
{% elif kind in ("sum", "product") %}
alias Partial = Number;

fn nothing() -> Partial {
  return Number({{ 0 if kind == "sum" else 1 }});
}

fn partial_of(v: Number, i: u32) -> Partial {
  return v;
}

fn combine(a: Partial, b: Partial) -> Partial {
  return a {{ "+" if kind == "sum" else "*" }} b;
}

fn result_of(partial: Partial, p: f32) -> Number {
  return partial;
}
{% elif kind in ("any", "all") %}
alias Partial = u32;  // 0 or 1

fn nothing() -> Partial {
  return {{ 0 if kind == "any" else 1 }}u;
}

fn partial_of(v: Number, i: u32) -> Partial {
  return u32({{ "(bitcast<u32>(v) & 0x7fffffffu) != 0u" if compute == "f32" else "v != 0" }});
}

fn combine(a: Partial, b: Partial) -> Partial {
  return a {{ "|" if kind == "any" else "&" }} b;
}

fn result_of(partial: Partial, p: f32) -> u32 {
  return partial;
}
{% elif kind == "var" %}
alias Partial = vec4<f32>;  // how many, their mean, the sum of squares of the distances to it

fn nothing() -> Partial {
  return Partial(0.0);
}

fn partial_of(v: Number, i: u32) -> Partial {
  let infinite = (bitcast<u32>(f32(v)) & 0x7f800000u) == 0x7f800000u;
  return Partial(1.0, f32(v), bitcast<f32>(select(0u, 0x7fc00000u, infinite)), 0.0);  // infinity has no distance: NaN
}

// Of four elements, without a division; the distance of infinity to their mean is NaN.
fn partial_of_quad(v: vec4<f32>) -> Partial {
  let mean = dot(v, vec4<f32>(0.25));
  let distance = v - mean;
  return Partial(4.0, mean, dot(distance, distance), 0.0);
}

fn combine(a: Partial, b: Partial) -> Partial {
  let count = a.x + b.x;
  let share = b.x / max(count, 1.0);
  let distance = b.y - a.y;
  let both = Partial(count, a.y + distance * share, a.z + b.z + distance * distance * a.x * share, 0.0);
  return select(select(both, a, b.x == 0.0), b, a.x == 0.0);
}

// p: how much less than the count divides.
fn result_of(partial: Partial, p: f32) -> f32 {
  return partial.z / max(partial.x - p, 0.0);
}

fn second_of(partial: Partial) -> f32 {
  return partial.y;
}
{% else %}
{% include "wgsl/maximum.wgsl" %}

alias Partial = vec2<f32>;  // the largest number, as far as it is finite, and the sum of exp(x - it)

fn nothing() -> Partial {
  return Partial(LOWEST, 0.0);
}

fn partial_of(v: Number, i: u32) -> Partial {
  let largest = clamp(f32(v), LOWEST, -LOWEST);
  return Partial(largest, exp(f32(v) - largest));
}

// Of four elements: one exponential each, and not one for each combination.
fn partial_of_quad(v: vec4<f32>) -> Partial {
  let finite = clamp(v, vec4<f32>(LOWEST), vec4<f32>(-LOWEST));
  let largest = max(max(finite.x, finite.y), max(finite.z, finite.w));
  let e = exp(v - largest);
  return Partial(largest, (e.x + e.y) + (e.z + e.w));
}

fn combine(a: Partial, b: Partial) -> Partial {
  let largest = max(a.x, b.x);
  return Partial(largest, a.y * exp(a.x - largest) + b.y * exp(b.x - largest));
}

fn result_of(partial: Partial, p: f32) -> f32 {
  return partial.x + log(partial.y);
}
{% endif %}
