{#
Copies a strided view of x to a strided view of out whose innermost dimension is another one than that of x.

A workgroup moves a tile of both dimensions through its memory, so that it reads and writes runs, and words whatever the
size of an element: of packed elements, an invocation turns blocks of as many words as a word has elements.

All loads of an invocation are on their way together: what lies past an edge is read from it, and goes nowhere.

Inputs:
  lanes = 1 | 2 | 4: elements of a word; if several, rows of out consist of whole words, those of x need not
  aligned = True | False: whether those of x do
#}
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

struct Params {
  dims: array<vec4<u32>, 2>,  // of all other dimensions, innermost first
  x_strides: array<vec4<i32>, 2>,
  out_strides: array<vec4<i32>, 2>,
  rank: u32,
  groups: u32,
  width: u32,   // of the innermost dimension of out
  height: u32,  // of that of x
  x_step: i32,  // in x, along the innermost dimension of out
  out_step: i32,
  x_base: i32,
  out_base: i32,
{% if not aligned %}
  last: u32,  // word of x
{% endif %}
}

{% set edge = 32 if lanes == 1 else 64 %}
{% set loads = edge * edge // lanes // 256 %}
const TILE = {{ edge }}u;  // elements along both dimensions
const WORDS = {{ edge // lanes }}u;  // of a row of a tile
const PITCH = WORDS + 1u;  // a word more, so that columns lie in different banks
const SIZE = 256u;  // invocations
var<workgroup> tile: array<u32, TILE * PITCH>;

// Row `row` of a tile: the rows that meet in a word of out lie WORDS apart, so that neighbours read neighbouring rows.
fn place(row: u32, word: u32) -> u32 {
  {% if lanes == 1 %}
  return row * PITCH + word;
  {% else %}
  return (row % {{ lanes }}u * WORDS + row / {{ lanes }}u) * PITCH + word;
  {% endif %}
}

// The word that begins with an element of x, which lies anywhere within a word.
fn loaded(element: u32) -> u32 {
  {% if aligned %}
  return x[element / {{ lanes }}u];
  {% else %}
  let at = element / {{ lanes }}u;
  let shift = element % {{ lanes }}u * {{ 32 // lanes }}u;
  // Shifted twice, since a shift by all bits is none.
  return (x[at] >> shift) | ((x[min(at + 1u, params.last)] << (31u - shift)) << 1u);
  {% endif %}
}

@compute @workgroup_size(SIZE)
fn main(
  @builtin(local_invocation_index) local: u32,
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let g = group.x + group.y * groups.x;
  if (g >= params.groups) {
    return;
  }
  let across = (params.width + TILE - 1u) / TILE;
  let down = (params.height + TILE - 1u) / TILE;
  let first = vec2<u32>(g % across, g / across % down) * TILE;
  var rest = g / across / down;
  var base = vec2<i32>(params.x_base, params.out_base);
  for (var d = 0u; d < params.rank; d++) {
    let size = params.dims[d / 4u][d % 4u];
    let outer = rest / size;
    let coordinate = i32(rest - outer * size);
    base += coordinate * vec2<i32>(params.x_strides[d / 4u][d % 4u], params.out_strides[d / 4u][d % 4u]);
    rest = outer;
  }
  let word = local % WORDS;
  let y = min(first.y + word * {{ lanes }}u, params.height - 1u);
  {% for k in range(loads) %}
  let row{{ k }} = local / WORDS + {{ k * (256 * lanes // edge) }}u;
  let word{{ k }} = loaded(u32(base.x + i32(min(first.x + row{{ k }}, params.width - 1u)) * params.x_step + i32(y)));
  {% endfor %}
  {% for k in range(loads) %}
  tile[place(row{{ k }}, word)] = word{{ k }};
  {% endfor %}
  workgroupBarrier();
  for (var i = local; i < WORDS * WORDS; i += SIZE) {
    let block = vec2<u32>(i % WORDS, i / WORDS);  // the word along out, and that along x
    let at = first + block * {{ lanes }}u;
    if (at.x < params.width && at.y < params.height) {
      let to = base.y + i32(at.x) + i32(at.y) * params.out_step;
      {% if lanes == 1 %}
      out[to] = tile[place(block.x, block.y)];
      {% else %}
      {% for k in range(lanes) %}
      let row{{ k }} = tile[place(block.x * {{ lanes }}u + {{ k }}u, block.y)];
      {% endfor %}
      {% for c in range(lanes) %}
      {% set shift = 32 // lanes * c %}
      if (at.y + {{ c }}u < params.height) {
        var word = extractBits(row0, {{ shift }}u, {{ 32 // lanes }}u);
        {% for k in range(1, lanes) %}
        word = insertBits(word, row{{ k }} >> {{ shift }}u, {{ 32 // lanes * k }}u, {{ 32 // lanes }}u);
        {% endfor %}
        out[(to + {{ c }} * params.out_step) / {{ lanes }}] = word;
      }
      {% endfor %}
      {% endif %}
    }
  }
}
