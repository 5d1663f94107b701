{#
Spans of a step: consecutive rows of one sequence, as attention/spans lists them.

Inputs:
  paged = False | True: whether there is such a list
#}
struct RowSpan {
  row: u32,       // of the step, the first one
  rows: u32,      // 0 past the end of the list
  position: u32,  // of the first row in its sequence
  sequence: u32,
}

{% if paged %}
@group(0) @binding(21) var<storage, read> spans: array<vec4<i32>>;
{% endif %}

fn row_span(index: u32) -> RowSpan {
  {% if paged %}
  let head = vec4<u32>(spans[0]);  // single rows, spans, and where spans begin
  if (index < head.y) {
    let span = vec4<u32>(spans[head.z - (head.y - 1u - index)]);  // the last rows see the most: begin with them
    return RowSpan(span.z, span.w, span.x, span.y);
  }
  {% endif %}
  return RowSpan();
}
