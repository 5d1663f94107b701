// What a {{ cache }} cache keeps of {{ T }}.
{% if cache == "float16" %}
// What is too large for a float16 becomes the largest.
fn store(x: vec4<f32>) -> vec2<u32> {
  let y = clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0));
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw));
}
{% else %}
fn store(x: {{ T }}) -> {{ T }} {
  return x;
}
{% endif %}
