// One load of a cache as float16 in workgroup memory, {{ unit }} in an element of it: an int8 cache's codes, each exact.
{% if int8 %}
// Four codes, in the order 0, 2, 1, 3. A float16 of 0x6400 and a byte is 1024 and that byte.
fn codes(x: u32) -> vec2<u32> {
  let biased = x ^ 0x80808080u;
  let even = bitcast<vec2<f16>>((biased & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  let odd = bitcast<vec2<f16>>(((biased >> 8u) & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  return vec2<u32>(bitcast<u32>(even), bitcast<u32>(odd));
}

{% endif %}
{% for i in range(width // unit) %}
fn staged{{ i }}(x: CacheLoad) -> Staged {
  {% if cache == "float16" %}
  return x;
  {% elif unit == 4 %}
  return codes(x);
  {% else %}
  return vec4<u32>(codes(x[{{ 2 * i }}]), codes(x[{{ 2 * i + 1 }}]));
  {% endif %}
}

{% endfor %}
{% if int8 %}
{% for i in range(width // unit) %}
// The values themselves, rounded to float16.
fn scaled{{ i }}(x: CacheLoad, step: f32) -> Staged {
  {% if unit == 4 %}
  return halves(bounded(step * cache_quad0(x)), vec4<f32>()).xy;
  {% else %}
  return halves(bounded(step * cache_quad{{ 2 * i }}(x)), bounded(step * cache_quad{{ 2 * i + 1 }}(x)));
  {% endif %}
}

{% endfor %}
{% endif %}
