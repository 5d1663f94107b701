// Which rows of Q an invocation copies to workgroup memory: every STAGE_STEP-th one, always the same vec4 of a chunk.
let stage_d = index % DEPTH;
let stage_row = index / DEPTH;
{% for i in range(teams * rows * depth // (lanes * teams)) %}
let stage_q{{ i }} = row_start(min(first_row + stage_row + {{ i }}u * STAGE_STEP, last_row), kv_head);
{% endfor %}
