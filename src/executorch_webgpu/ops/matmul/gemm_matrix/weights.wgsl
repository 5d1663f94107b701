{#
Eight weights along K of one column: how they are loaded, and what they are in float32.
#}
{% if quantized and not paired %}
{% include "matmul/codes.wgsl" %}
{% endif %}

// Eight weights along K of one column, as they lie in memory.
struct Eight {
  {% for i in range(word_units) %}
  word{{ i }}: {{ unit }},
  {% if quantized %}
  scale{{ i }}: {{ "f32" if scales == "float32" else "u32" }},
  {% endif %}
  {% endfor %}
}

fn load_weights(weights_from: u32, scales_from: u32, word: u32) -> Eight {
  var loaded: Eight;
  {% for i in range(word_units) %}
  {
    // Words past the end of the row are multiplied by zeros.
    let unit = min(word * WORD_UNITS + {{ i }}u, params.units - 1u);
    {% if not quantized %}
    loaded.word{{ i }} = weights[weights_from + unit];
    {% else %}
    {% if group_shift %}
    let place = scales_from + (unit >> params.group) * 4u;
    {% else %}
    let place = scales_from + (unit / params.group) * 4u;
    {% endif %}
    loaded.word{{ i }} = weights[weights_from + unit * 4u];
    {% if scales == "float16" %}
    loaded.scale{{ i }} = scales[place / 2u] >> (place % 2u * 16u);
    {% else %}
    loaded.scale{{ i }} = scales[place];
    {% endif %}
    {% endif %}
  }
  {% endfor %}
  return loaded;
}

{% if quantized %}
// A scale, and the minimum beside it if there are any.
fn scale_of(stored: {{ "f32" if scales == "float32" else "u32" }}) -> vec2<f32> {
  return {{ "vec2<f32>(stored, 0.0)" if scales == "float32" else "unpack2x16float(stored)" }};
}
{% endif %}
{% if quantized and not paired %}
fn dequantized(word: u32, scale: vec2<f32>) -> vec4<f32> {
  return four_codes(word) * scale.x{{ " + scale.y" if mins }};
}

fn low_weights(eight: Eight) -> vec4<f32> {
  return dequantized(eight.word0, scale_of(eight.scale0));
}

fn high_weights(eight: Eight) -> vec4<f32> {
  {% if bits == 8 %}
  return dequantized(eight.word1, scale_of(eight.scale1));
  {% else %}
  return dequantized(eight.word0 >> 16u, scale_of(eight.scale0));
  {% endif %}
}
{% elif not quantized %}
{% for name, word in (("low", "word0"), ("high", "word1")) %}
fn {{ name }}_weights(eight: Eight) -> vec4<f32> {
  {% if bits == 32 %}
  return eight.{{ word }};
  {% else %}
  return vec4<f32>(unpack2x16float(eight.{{ word }}.x), unpack2x16float(eight.{{ word }}.y));
  {% endif %}
}

{% endfor %}
{% endif %}
