{#
Values that go to addresses, and what is made of two of them.

Inputs:
  reduce = "set" | "add" | "mul" | "mean" | "amax" | "amin": what is made of values; "set" takes the last one
  dtype = "float32" | "float16" | "bfloat16" | "int32" | "int16" | "bool" | "uint8" | "int8": of x, values and out
#}
{% include "wgsl/elements.wgsl" %}
{% include "wgsl/float_order.wgsl" %}
alias Number = {{ "u32" if reduce == "set" or dtype == "bool" else "f32" if "float" in dtype else "i32" }};

const CHUNK = 1024u;  // sources in a row of which one total is made, if they have one address

{% if reduce == "set" %}
fn element(bits: u32, i: u32, lanes: u32) -> Number {
  return extractBits(bits, i % lanes * (32u / lanes), 32u / lanes);
}
{% else %}
fn element(bits: {{ dtype }}_word, i: u32, lanes: u32) -> Number {
  return element_{{ dtype }}(bits, i);
}
{% endif %}

{% if reduce in ("amax", "amin") %}
// Of two numbers, how they are ordered; NaN is what remains.
fn is_beyond(a: Number, b: Number) -> bool {
{% if "float" in dtype %}
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
{% elif reduce in ("add", "mean") %}
  return a + b;
{% elif reduce == "mul" %}
  return a * b;
{% elif reduce == "set" %}
  return b;
{% else %}
  return select(a, b, is_beyond(b, a));
{% endif %}
}
