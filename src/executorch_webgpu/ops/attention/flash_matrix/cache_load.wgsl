{#
A load of the cache as float16 in workgroup memory: codes of int8, each exact, or values rounded.
#}
{% if int8 %}
// Four codes, in the order 0, 2, 1, 3. A float16 of 0x6400 and a byte is 1024 and that byte.
fn codes(x: u32) -> vec2<u32> {
  let biased = x ^ 0x80808080u;
  let even = bitcast<vec2<f16>>((biased & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  let odd = bitcast<vec2<f16>>(((biased >> 8u) & 0x00ff00ffu) | 0x64006400u) - vec2<f16>(1152.0h);
  return vec2<u32>(bitcast<u32>(even), bitcast<u32>(odd));
}

{% for i in range(width // unit) %}
{% if unit == 4 %}
fn staged_k{{ i }}(x: CacheLoad) -> Staged {
  return codes(cache_four{{ i }}(x));
}

fn staged_v{{ i }}(x: CacheLoad, step: f32) -> Staged {
  return packed(bounded(step * cache_quad{{ i }}(x)), vec4<f32>());
}
{% else %}
fn staged_k{{ i }}(x: CacheLoad) -> Staged {
  return vec4<u32>(codes(cache_four{{ 2 * i }}(x)), codes(cache_four{{ 2 * i + 1 }}(x)));
}

fn staged_v{{ i }}(x: CacheLoad, step: f32) -> Staged {
  return packed(bounded(step * cache_quad{{ 2 * i }}(x)), bounded(step * cache_quad{{ 2 * i + 1 }}(x)));
}
{% endif %}{% endfor %}{% endif %}
fn like_keys(x: vec4<f32>) -> vec4<f32> {
  return x{{ ".xzyw" if int8 }};
}
