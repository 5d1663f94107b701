{#
One pass of a Hadamard transform: an invocation combines elements of a row that lie a step apart.

Inputs:
  radix = 1 | 2 | 4 | 8 | 16 | 28: how many
  in_place = False | True: whether they are read where the result is
#}
{% if not in_place %}
@group(0) @binding(0) var<storage, read> x: array<f32>;
{% endif %}
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Params {
  n: u32,
  step: u32,
  scale: f32,
}
@group(0) @binding(2) var<uniform> params: Params;

const RADIX = {{ radix }}u;
{% if radix == 28 %}
// Bit j of a row is set where column j of the matrix is -1.
const ROWS = array<u32, 28>(
  0xcd69e7eu, 0x9ad7c7du, 0x37ab8fbu, 0x6d571f7u, 0xd8ae3efu, 0xb3587dfu, 0x66b4f3fu,
  0xb467f43u, 0x6acbe87u, 0xd593d8eu, 0xab27b9cu, 0x564f7b8u, 0xac9aff0u, 0x5b31fe1u,
  0x87fb325u, 0x0ff66cau, 0x1decd95u, 0x39ddb2au, 0x71bf654u, 0xe17eca9u, 0xc2fd9d2u,
  0xfcf1299u, 0xfbe2532u, 0xf7c4ae4u, 0xef8d549u, 0xdf1ea13u, 0xbe3d4a6u, 0x7e7a94cu,
);
{% endif %}

override wg_size: u32 = 64;
{% include "wgsl/linear_index.wgsl" %}

@compute @workgroup_size(wg_size)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = linear_index(gid, groups, wg_size);
  if (i >= params.n) {
    return;
  }
  let first = i / params.step * params.step * RADIX + i % params.step;
  {% for k in range(radix) %}
  let v{{ k }} = {{ "out" if in_place else "x" }}[first + {{ k }}u * params.step];
  {% endfor %}
  {% if radix == 28 %}
  for (var row = 0u; row < RADIX; row++) {
    let signs = ROWS[row];
    var total = 0.0;
    {% for k in range(radix) %}
    total += select(v{{ k }}, -v{{ k }}, extractBits(signs, {{ k }}u, 1u) == 1u);
    {% endfor %}
    out[first + row * params.step] = total * params.scale;
  }
  {% else %}
  {% for half in (1, 2, 4, 8) if half < radix %}
  {% set before = "v" if half == 1 else "s%d_" % (half // 2) %}
  {% for k in range(radix) %}
  {% if k // half % 2 %}
  let s{{ half }}_{{ k }} = {{ before }}{{ k - half }} - {{ before }}{{ k }};
  {% else %}
  let s{{ half }}_{{ k }} = {{ before }}{{ k }} + {{ before }}{{ k + half }};
  {% endif %}
  {% endfor %}
  {% endfor %}
  {% for k in range(radix) %}
  out[first + {{ k }}u * params.step] = {{ "v" if radix == 1 else "s%d_" % (radix // 2) }}{{ k }} * params.scale;
  {% endfor %}
  {% endif %}
}
