// x[row, k .. k + 3]{{ ", zero past the end of the row" if guarded }}.
fn load_x(row: u32, k: u32) -> vec4<f32> {
  let start = row * params.k + k;
  {% if guarded and quads %}
  if (k >= params.k) {
    return vec4<f32>();
  }
  {% endif %}
  {% if quads %}
  return x[start / 4u];
  {% else %}
  var values = vec4<f32>();
  {% for i in range(4) %}
  if (k + {{ i }}u < params.k) {
    values[{{ i }}] = x[start + {{ i }}u];
  }
  {% endfor %}
  return values;
  {% endif %}
}
