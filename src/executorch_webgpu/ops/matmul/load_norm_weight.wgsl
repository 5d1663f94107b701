// Four weights of the norm from k on; past the end, where x is zero, any.
fn load_norm_weight(k: u32) -> vec4<f32> {
  {% if quads %}
  return norm_weight[min(k, params.k - 1u) / 4u];
  {% else %}
  let last = params.k - 1u;
  return vec4<f32>(
    norm_weight[min(k, last)], norm_weight[min(k + 1u, last)],
    norm_weight[min(k + 2u, last)], norm_weight[min(k + 3u, last)],
  );
  {% endif %}
}
