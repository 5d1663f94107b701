// What gemm_matrix.wgsl takes: packed weights column by column, and x in float16.
@group(0) @binding(0) var<storage, read> split: array<vec4<u32>>;  // see split_rows.wgsl
@group(0) @binding(1) var<storage, read> weights: array<u32>;      // [quads, units, 4]
@group(0) @binding(2) var<storage, read> scales: array<{{ "f32" if scales_f32 else "u32" }}>;  // [quads, groups, 4]
{% for i in range(outputs) %}
@group(0) @binding({{ 3 + i }}) var<storage, read_write> out{{ i }}: array<f32>;  // [m, widths[{{ i }}]]
{% endfor %}
@group(0) @binding(6) var<storage, read> column_powers: array<f32>;  // [4 * quads] powers of two
{% if bias %}
@group(0) @binding(7) var<storage, read> bias: array<f32>;  // [4 * quads]
{% endif %}
{% if residual %}
@group(0) @binding(8) var<storage, read> residual: array<f32>;  // like out0
{% endif %}

struct Params {
  m: u32,
  steps: u32,         // along K
  units: u32,         // words of a row of weights
  quads: u32,         // fours of columns, of all matrices
  column_tiles: u32,  // workgroups side by side; the grid is the flat list of all tiles, row by row
  group: u32,         // units of a group{{ ", as a power of two" if shifted }}
  groups: u32,        // of a row of weights
  ends: vec4<u32>,    // of each output, the quad after its last one
  widths: vec4<u32>,  // of each output, columns
}
@group(0) @binding(9) var<uniform> params: Params;

{% include codes ~ ".wgsl" %}

// Eight weights along K of one column, as they lie in memory.
struct Eight {
  {% for i in range(word_units) %}
  word{{ i }}: u32,
  scale{{ i }}: {{ "f32" if scales_f32 else "u32" }},
  {% endfor %}
}

fn load_weights(weights_from: u32, scales_from: u32, word: u32) -> Eight {
  var loaded: Eight;
  {% for i in range(word_units) %}
  {
    // Words past the end of the row are multiplied by zeros.
    let unit = min(word * {{ word_units }}u + {{ i }}u, params.units - 1u);
    let place = scales_from + (unit {{ ">>" if shifted else "/" }} params.group) * 4u;
    loaded.word{{ i }} = weights[weights_from + unit * 4u];
    {% if scales_f32 or mins %}
    loaded.scale{{ i }} = scales[place];
    {% else %}
    loaded.scale{{ i }} = scales[place / 2u] >> (place % 2u * 16u);
    {% endif %}
  }
  {% endfor %}
  return loaded;
}

{% for name, i, shift in (("low", 0, ""), ("high", word_units - 1, " >> 16u" if word_units == 1 else "")) %}
fn {{ name }}_weights(eight: Eight) -> vec4<f32> {
  {% if scales_f32 %}
  return float_codes(eight.word{{ i }}{{ shift }}) * eight.scale{{ i }};
  {% else %}
  let scale = unpack2x16float(eight.scale{{ i }});
  return float_codes(eight.word{{ i }}{{ shift }}) * scale.x{{ " + scale.y" if mins }};
  {% endif %}
}

{% endfor %}
fn halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(
    pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw)
  );
}

// The upper 11 bits of each number. (Converting to float16 and back is undone by a compiler.)
fn upper(x: vec4<f32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4<u32>(0xffffe000u));
}

// Four columns of a row of sums without the powers of two.
fn scaled(sums: vec4<u32>, row: u32, quad: u32) -> vec4<f32> {
  let inverse = bitcast<f32>(split[params.steps * params.m * {{ parts * words }}u + row].x);
  let powers = vec4<f32>(
    column_powers[quad * 4u], column_powers[quad * 4u + 1u], column_powers[quad * 4u + 2u], column_powers[quad * 4u + 3u],
  );
  // 1 / 2^n is 254 - (n + 127) in the exponent.
  let inverses = bitcast<vec4<f32>>(vec4<u32>(0x7f000000u) - bitcast<vec4<u32>>(powers));
  return bitcast<vec4<f32>>(sums) * inverse * inverses;
}
