// Four consecutive elements of a KV cache of dtype `cache`; int8 codes are still to be multiplied by their scale.
{% if cache == "float32" %}
fn cache_vector(x: vec4<f32>) -> vec4<f32> {
  return x;
}
{% elif cache == "float16" %}
fn cache_vector(x: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(x.x), unpack2x16float(x.y));
}
{% else %}
fn cache_vector(x: u32) -> vec4<f32> {
  let high = vec4<i32>(vec4<u32>(x) << vec4<u32>(24u, 16u, 8u, 0u));
  return vec4<f32>(high >> vec4<u32>(24u));
}
{% endif %}
