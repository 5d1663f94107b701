// One load of a KV cache of dtype `cache`: `width` consecutive elements of a head, as `width` / 4 vec4s.
// Codes of an int8 cache are still to be multiplied by the scale of their row and head.
{% set words = width // 4 * {"float32": 4, "float16": 2, "int8": 1}[cache] %}
{% set scalar = "f32" if cache == "float32" else "u32" %}
alias CacheLoad = {{ scalar if words == 1 else "vec%d<%s>" % (words, scalar) }};

{% if cache == "int8" %}
// Four codes: a float32 of 0x4b000000 and a byte is 2^23 and that byte, so no slow conversion is needed.
fn four_codes(x: u32) -> vec4<f32> {
  let biased = vec4<u32>(x ^ 0x80808080u) >> vec4<u32>(0u, 8u, 16u, 24u);
  return bitcast<vec4<f32>>((biased & vec4<u32>(0xffu)) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388736.0);
}

{% endif %}
{% for i in range(width // 4) %}
fn cache_quad{{ i }}(x: CacheLoad) -> vec4<f32> {
  {% if cache == "float32" %}
  return x;
  {% elif cache == "float16" %}
  return vec4<f32>(unpack2x16float(x[{{ 2 * i }}]), unpack2x16float(x[{{ 2 * i + 1 }}]));
  {% else %}
  return four_codes(x{{ "[%d]" % i if words > 1 }});
  {% endif %}
}

{% endfor %}
