{#
Rows split to float16 for the tensor cores of gemm_matrix, eight elements along K at a time. Binding 3: where they go.

Inputs:
  out_parts = 2 | 1: float16 numbers for each element: the upper 11 bits and the rest, or one that is rounded
  out_pairs = 0 | 4 | 8: eights are as they come, or in the order of the pairs of codes of so many bits (code_pairs.wgsl)
#}
{% set places = {0: [0, 1, 2, 3, 4, 5, 6, 7], 4: [0, 4, 1, 5, 2, 6, 3, 7], 8: [0, 2, 1, 3, 4, 6, 5, 7]}[out_pairs] %}
{% include "wgsl/halves.wgsl" %}
@group(0) @binding(3) var<storage, read_write> split_out: array<vec4<u32>>;  // [steps, rows, parts, words of a step]

fn eight(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  {% if out_pairs %}
  return vec4<u32>(
    {% for i in range(0, 8, 2) %}
    pack2x16float(vec2<f32>(
      {%- for place in places[i:i + 2] -%}
      {{ "low" if place < 4 else "high" }}[{{ place % 4 }}]{{ ", " if loop.first }}
      {%- endfor -%}
    )),
    {% endfor %}
  );
  {% else %}
  return halves(low, high);
  {% endif %}
}

// Word `word`, eight elements, of row `row` of `rows`.
fn store_eight(word: u32, row: u32, rows: u32, step_words: u32, low: vec4<f32>, high: vec4<f32>) {
  let at = (word / step_words * rows + row) * (step_words * {{ out_parts }}u) + word % step_words;
  {% if out_parts == 2 %}
  split_out[at] = eight(upper(low), upper(high));
  split_out[at + step_words] = eight(rest(low), rest(high));
  {% else %}
  split_out[at] = eight(low, high);
  {% endif %}
}
