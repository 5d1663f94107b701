{#
Inclusive scan of x [outer, length, inner] along its middle dimension, such as cumsum, whole rows or chunks of them.

`lanes` invocations of a workgroup share a row, which is a pair of an outer and an inner index, and go along it in tiles.
Across, each owns consecutive elements of a tile. Along, a team of four does: its members take turns by quads, so that
memory is read and written in whole sectors. Chunks begin with what reduce.wgsl made of those before.

Inputs:
  kind = "last_largest" | "sum" | "lse": see reduce/partial.wgsl
  compute = "f32" | "i32": the type of the numbers that are scanned
  across = False | True: whether neighbours own neighbouring rows; else inner is 1, and elements come in fours
  whole = True | False: whether, along, rows consist of quads
  chunked = False | True: whether a row is cut into chunks
  x = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8": dtype
  out = "float32" | "int32": dtype; one narrower than a word only where rows and chunks begin and end at multiples of four
  places = False | True: whether the places of extremes are wanted, too
#}
{% set words = {"sum": compute, "product": compute, "lse": "vec2<f32>", "var": "vec4<f32>"} %}
{% set partial = words.get(kind, "vec2<u32>" if "est" in kind else "u32") %}
{% set part = "word" if across else "quad" %}
{% set whole_words = out in ("float32", "int32", "bool") %}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_{{ part }}>;
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_{{ part }}>;
{% if places %}
@group(0) @binding(2) var<storage, read_write> places: array<int32_{{ part }}>;
{% endif %}
{% if chunked %}
@group(0) @binding(3) var<storage, read> carries: array<{{ partial }}>;  // [rows, chunks]
{% endif %}
@group(0) @binding(4) var<uniform> params: Params;

struct Params {
  rows: u32,  // outer * inner
  length: u32,
  inner: u32,
  chunk: u32,  // elements of a chunk, a multiple of 4
  chunks: u32,
  lanes: u32,  // a power of two that divides wg_size
  blocks: u32,  // workgroups that have work
}

override wg_size: u32 = 256;

{% if not across %}
var<workgroup> partials: array<{{ partial }}, 4u * wg_size>;
{% endif %}
var<workgroup> totals: array<{{ partial }}, wg_size>;
var<workgroup> blocks: array<{{ partial }}, wg_size>;

const UNITS = {{ 8 if across else 4 }}u;  // words or quads that an invocation owns of a tile

{% include "reduce/partial.wgsl" %}
{% include "wgsl/elements.wgsl" %}

// Of partials of elements before and after.
fn joined(a: Partial, b: Partial) -> Partial {
  {% if "last" in kind and not chunked %}
  return select(a, b, b.x >= a.x);
  {% else %}
  return combine(a, b);  // partials of chunks come in any order
  {% endif %}
}

struct Prefix {
  before: Partial,
  all: Partial,
}

const BLOCK = 8u;  // partials that each invocation combines, at each of two levels: two barriers, where a tree has many

{% macro eight(array, count, at) %}
    {% for i in range(8) %}
    let p{{ i }} = {{ array }}[first + (begin + min({{ i }}u, {{ count }} - 1u)) * step];
    {% endfor %}
    {% for i in range(8) %}
    before = select(before, all, begin + {{ i }}u == {{ at }});
    all = select(all, joined(all, p{{ i }}), {{ i }}u < {{ count }});
    {% endfor %}
{% endmacro %}
// What comes before partial `index` of `count`, a power of two, and what all come to. They lie at `first` and `step` apart;
// of invocations that share one, one `leads`. Call it in uniform control flow.
fn prefix_of(value: Partial, first: u32, step: u32, count: u32, index: u32, leads: bool) -> Prefix {
  if (leads) {
    totals[first + index * step] = value;
  }
  workgroupBarrier();
  let size = min(BLOCK, count);
  let block = index / size;
  var before = nothing();
  var all = nothing();
  {
    let begin = block * size;
    {{- eight("totals", "size", "index") }}
  }
  if (leads && index == block * size) {
    blocks[first + block * step] = all;
  }
  workgroupBarrier();
  let own = before;
  before = nothing();
  all = nothing();
  let last = count / size;
  for (var begin = 0u; begin < last; begin += BLOCK) {
    let left = min(BLOCK, last - begin);
    {{- eight("blocks", "left", "block") }}
  }
  return Prefix(joined(before, own), all);
}

alias Row = vec4<u32>;  // where it starts in x; the chunk's first element and the one past its last one; the lane

{% if across %}
{% set components = [""] %}
// Element k of those that a lane owns in a tile, as far as there are so many.
fn index_of(row: Row, tile: u32, k: u32) -> u32 {
  return row.y + (tile * params.lanes + row.w) * UNITS + k;
}

fn loaded(row: Row, index: u32) -> Number {
  let at = row.x + min(index, row.z - 1u) * params.inner;
  return Number(element_{{ x }}(x[at / {{ x }}_per_word], at));
}

fn inside(row: Row, index: u32) -> bool {
  return index < row.z;
}

fn stepped(before: Partial, row: Row, index: u32, v: Number) -> Partial {
  return select(before, combine(before, partial_of(v, index)), inside(row, index));
}

fn store(row: Row, index: u32, result: Partial) {
  if (inside(row, index)) {
    let at = row.x + index * params.inner;
    out[at] = {{ out }}_word(result_of(result, 0.0));
    {% if places %}
    places[at] = second_of(result);
    {% endif %}
  }
}
{% else %}
{% set components = ["x", "y", "z", "w"] %}
const TEAM = 4u;

// Quad k, counted in all of x, of those that a lane owns in a tile.
fn index_of(row: Row, tile: u32, k: u32) -> u32 {
  let team = min(TEAM, params.lanes);
  return (row.x + row.y) / 4u + (tile * params.lanes + row.w / team * team) * UNITS + k * team + row.w % team;
}

fn loaded(row: Row, quad: u32) -> vec4<Number> {
  return vec4<Number>(unpack_{{ x }}(x[min(quad, (row.x + row.z - 1u) / 4u)]));
}

// Element `at` of x.
fn inside(row: Row, at: u32) -> bool {
  return (at >= row.x + row.y) & (at < row.x + row.z);
}

{% if not whole %}
fn stepped(before: Partial, row: Row, at: u32, v: Number) -> Partial {
  return select(before, joined(before, partial_of(v, at - row.x)), inside(row, at));
}

{% endif %}
// Rows may meet within a quad, so that each stores its elements of it.
fn store(row: Row, quad: u32, a: Partial, b: Partial, c: Partial, d: Partial) {
  let at = quad * 4u;
  {% set number = "f32" if "float" in out else "u32" if out == "bool" else "i32" %}
  {% set results = [("out", out ~ "_numbers", number ~ "(result_of(%s, 0.0))"), ("places", "int32_numbers", "second_of(%s)")] %}
  {% for buffer, numbers, result in results[:2 if places else 1] %}
  let {{ buffer }}_quad = {{ numbers }}({% for p in "abcd" %}{{ result | format(p) }}{{ ", " if p != "d" }}{% endfor %});
  {% endfor %}
  if (inside(row, at){{ " & inside(row, at + 3u)" if not whole }}) {
    out[quad] = pack_{{ out }}(out_quad);
    {% if places %}
    places[quad] = places_quad;
    {% endif %}
    {{ "return;" if not whole }}
  }
  {% if whole_words and not whole %}
  {% for c in "xyzw" %}
  if (inside(row, at + {{ loop.index0 }}u)) {
    out[quad].{{ c }} = out_quad.{{ c }};
    {% if places %}
    places[quad].{{ c }} = places_quad.{{ c }};
    {% endif %}
  }
  {% endfor %}
  {% endif %}
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let order = group.x + group.y * groups.x;
  if (order >= params.blocks) {
    return;
  }
  let block = params.blocks - 1u - order;  // what was reduced last may still be in a cache
  let rows = wg_size / params.lanes;
  let chunk = block % params.chunks;
  {% if across %}
  let number = block / params.chunks * rows + local % rows;
  let lane = local / rows;
  let stride = rows;
  {% else %}
  let number = block / params.chunks * rows + local / params.lanes;
  let lane = local % params.lanes;
  let stride = 1u;
  {% endif %}
  let known = min(number, params.rows - 1u);
  let begin = chunk * params.chunk;
  let end = select(begin, min(begin + params.chunk, params.length), number < params.rows);
  let row = Row(known / params.inner * params.length * params.inner + known % params.inner, begin, end, lane);

  var carry = nothing();
  {% if chunked %}
  for (var i = lane; i < chunk; i += params.lanes) {
    carry = combine(carry, carries[known * params.chunks + i]);
  }
  carry = prefix_of(carry, local - lane * stride, stride, params.lanes, lane, true).all;
  {% endif %}

  let span = params.lanes * UNITS{{ "" if across else " * 4u" }};
  let tiles = (params.chunk + {{ "" if across else "3u + " }}span - 1u) / span;
  for (var tile = 0u; tile < tiles; tile++) {
    {% for k in range(8 if across else 4) %}
    let at{{ k }} = index_of(row, tile, {{ k }}u);
    let v{{ k }} = loaded(row, at{{ k }});
    {% endfor %}
    {% if across %}
    var total = nothing();
    {% for k in range(8) %}
    total = stepped(total, row, at{{ k }}, v{{ k }});
    {% endfor %}
    {% else %}
    // What comes before each quad within its team, and then the total of the team. Quads past a row's end do not count,
    // since nothing that is stored comes after them.
    {% for k in range(4) %}
    {% if whole %}
    let i{{ k }} = at{{ k }} * 4u - row.x;
    let quad{{ k }} = joined(
      joined(partial_of(v{{ k }}.x, i{{ k }}), partial_of(v{{ k }}.y, i{{ k }} + 1u)),
      joined(partial_of(v{{ k }}.z, i{{ k }} + 2u), partial_of(v{{ k }}.w, i{{ k }} + 3u))
    );
    {% else %}
    var quad{{ k }} = nothing();
    {% for c in components %}
    quad{{ k }} = stepped(quad{{ k }}, row, at{{ k }} * 4u + {{ loop.index0 }}u, v{{ k }}.{{ c }});
    {% endfor %}
    {% endif %}
    partials[{{ k }}u * wg_size + local] = quad{{ k }};
    {% endfor %}
    workgroupBarrier();
    let width = min(TEAM, params.lanes);
    let member = lane % width;
    var total = nothing();
    {% for k in range(4) %}
    var before{{ k }} = total;
    {% for other in range(4) %}
    {
      let p = partials[{{ k }}u * wg_size + local - member + min({{ other }}u, width - 1u)];
      before{{ k }} = select(before{{ k }}, total, member == {{ other }}u);
      total = select(total, joined(total, p), {{ other }}u < width);
    }
    {% endfor %}
    {% endfor %}
    {% endif %}
    {% if across %}
    let prefix = prefix_of(total, local - lane * stride, stride, params.lanes, lane, true);
    {% else %}
    let prefix = prefix_of(total, (local - lane) / width, 1u, params.lanes / width, lane / width, member == 0u);
    {% endif %}
    var result = joined(carry, prefix.before);
    carry = joined(carry, prefix.all);
    {% if across %}
    {% for k in range(8) %}
    result = stepped(result, row, at{{ k }}, v{{ k }});
    store(row, at{{ k }}, result);
    {% endfor %}
    {% else %}
    {% for k in range(4) %}
    {
      let base = joined(result, before{{ k }});
      {% if whole %}
      let first = joined(base, partial_of(v{{ k }}.x, i{{ k }}));
      let y = joined(first, partial_of(v{{ k }}.y, i{{ k }} + 1u));
      let z = joined(y, partial_of(v{{ k }}.z, i{{ k }} + 2u));
      store(row, at{{ k }}, first, y, z, joined(z, partial_of(v{{ k }}.w, i{{ k }} + 3u)));
      {% else %}
      let first = stepped(base, row, at{{ k }} * 4u, v{{ k }}.x);
      let y = stepped(first, row, at{{ k }} * 4u + 1u, v{{ k }}.y);
      let z = stepped(y, row, at{{ k }} * 4u + 2u, v{{ k }}.z);
      store(row, at{{ k }}, first, y, z, stepped(z, row, at{{ k }} * 4u + 3u, v{{ k }}.w));
      {% endif %}
    }
    {% endfor %}
    {% endif %}
  }
}
