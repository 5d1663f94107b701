// What becomes of a finished sum. A position is a column in the order of the packed weights, 4 * quad + c.
{% if gated %}
fn silu(x: f32) -> f32 {
  let e = exp(-abs(x));  // never of a positive number, so that nothing overflows
  return x * select(1.0, e, x < 0.0) / (1.0 + e);
}
{% endif %}

fn with_bias(sum: f32, position: u32) -> f32 {
  return sum{{ " + bias[position]" if bias }};
}

{% if residual %}
// What is added to an element of the output; of places that are not there, that of another one.
fn residual_of(row: u32, quad: u32, c: u32) -> f32 {
  return residual[min(row, params.m - 1u) * params.widths[0] + min(quad * 4u + c, params.widths[0] - 1u)];
}

{% endif %}
// Column 4 * quad + c of the outputs, whose quads lie one behind the other.
fn write(row: u32, quad: u32, c: u32, value: f32) {
  {% for i in range(outputs) %}
  {{ "if (quad < params.ends[%d]) {" % i if i + 1 < outputs else "{" }}
    let column = {{ "(quad - params.ends[%d])" % (i - 1) if i else "quad" }} * 4u + c;
    if (column < params.widths[{{ i }}]) {
      out{{ i }}[row * params.widths[{{ i }}] + column] = value;
    }
  }{{ " else" if i + 1 < outputs }}
  {% endfor %}
}

fn store(row: u32, quad: u32, c: u32, value: f32) {
  write(row, quad, c, value{{ " + residual_of(row, quad, c)" if residual }});
}
