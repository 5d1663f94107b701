{#
How a KV cache keeps its elements: what a load of some of a head brings, and what is stored of four.

int8: codes, and a scale of each row and head, max|x| / 127. An element is code * scale. A row too small for that becomes
zeros. float16: what is too large becomes the largest.

Inputs:
  cache = "int8" | "float16" | "float32": what an element of the cache is
  width = 4 | 8 | 16: elements of a load, at most 16 bytes
#}
{% set four = {"int8": "u32", "float16": "vec2<u32>", "float32": "vec4<f32>"}[cache] %}
{% set words = width * {"int8": 1, "float16": 2, "float32": 4}[cache] // 4 %}
alias CacheFour = {{ four }};  // four elements of the cache
alias CacheLoad = {{ four if width == 4 else "vec%d<u32>" % words }};

{% if cache == "int8" %}
fn int8_scale(largest: f32) -> f32 {
  let scale = largest / 127.0;
  return select(0.0, scale, scale > 1e-36);  // a smaller divisor may count as 0
}

fn int8_divisor(scale: f32) -> f32 {
  return select(1.0, scale, scale > 0.0);
}

// The codes of what a row's divisor has divided.
fn stored(x: vec4<f32>) -> CacheFour {
  let codes = vec4<i32>(clamp(round(x), vec4<f32>(-127.0), vec4<f32>(127.0)));
  let bytes = vec4<u32>(codes) & vec4<u32>(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

// A float32 of 0x4b000000 and a byte is 2^23 and that byte, so no slow conversion is needed.
fn loaded(x: CacheFour) -> vec4<f32> {
  let biased = vec4<u32>(x ^ 0x80808080u) >> vec4<u32>(0u, 8u, 16u, 24u);
  return bitcast<vec4<f32>>((biased & vec4<u32>(0xffu)) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388736.0);
}
{% elif cache == "float16" %}
fn stored(x: vec4<f32>) -> CacheFour {
  let y = clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0));
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw));
}

fn loaded(x: CacheFour) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y));
}
{% else %}
fn stored(x: vec4<f32>) -> CacheFour {
  return x;
}

fn loaded(x: CacheFour) -> vec4<f32> {
  return x;
}
{% endif %}

// The fours of a load, and the numbers in them.
{% for i in range(width // 4) %}
fn cache_four{{ i }}(x: CacheLoad) -> CacheFour {
  {% if width == 4 %}
  return x;
  {% elif cache == "int8" %}
  return x[{{ i }}];
  {% else %}
  return vec2<u32>(x[{{ 2 * i }}], x[{{ 2 * i + 1 }}]);
  {% endif %}
}

fn cache_quad{{ i }}(x: CacheLoad) -> vec4<f32> {
  return loaded(cache_four{{ i }}(x));
}

{% endfor %}
