{#
The scales of four neighbouring rows of quantized weights, and their minima.

Inputs:
  scales = "float32" | "float16" | "float16_and_min": how a scale is stored; the last one with the minimum of its group,
    a float16 beside it
#}
{% if scales == "float32" %}
alias FourScales = vec4<f32>;

fn four_scales(packed: FourScales) -> vec4<f32> {
  return packed;
}
{% elif scales == "float16" %}
alias FourScales = vec2<u32>;

fn four_scales(packed: FourScales) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(packed[0]), unpack2x16float(packed[1]));
}
{% else %}
alias FourScales = vec4<u32>;

fn four_scales(packed: FourScales) -> vec4<f32> {
  return vec4<f32>(
    unpack2x16float(packed[0])[0], unpack2x16float(packed[1])[0],
    unpack2x16float(packed[2])[0], unpack2x16float(packed[3])[0],
  );
}

fn four_mins(packed: FourScales) -> vec4<f32> {
  return vec4<f32>(
    unpack2x16float(packed[0])[1], unpack2x16float(packed[1])[1],
    unpack2x16float(packed[2])[1], unpack2x16float(packed[3])[1],
  );
}
{% endif %}
