{#
What becomes of a finished sum: bias and bounds. Binding 3.

Inputs:
  bias = "float32" | "float16" | None: the dtype of what is added to each output channel
#}
{% if bias is not none %}
@group(0) @binding(3) var<storage, read> bias: array<{{ "f32" if bias == "float32" else "u32" }}>;  // [output channels]
{% endif %}

fn with_bias(sum: f32, channel: u32) -> f32 {
  {% if bias == "float32" %}
  return sum + bias[channel];
  {% elif bias == "float16" %}
  return sum + unpack2x16float(bias[channel / 2u])[channel % 2u];
  {% else %}
  return sum;
  {% endif %}
}

// The bounds may be infinite. NaN stays, by its bits: drivers turn a comparison into min or max, which drop it.
fn finished(sum: f32, channel: u32, low: f32, high: f32) -> f32 {
  let value = with_bias(sum, channel);
  let is_nan = (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
  return select(min(max(value, low), high), value, is_nan);
}
