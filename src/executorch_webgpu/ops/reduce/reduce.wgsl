{#
One pass of a reduction: x [outer, length, inner] along its middle dimension, whole or in chunks.

`lanes` invocations of a workgroup share a row, which is a pair of an outer and an inner index; a workgroup has several.
What is left of a chunk is a partial: [rows, chunks] of them, or the results.

Inputs:
  kind = "largest" | "sum": see partial.wgsl
  compute = "f32" | "i32": the type of the numbers that are reduced
  x = "float32" | "float16" | "int32" | "bool" | "uint8" | "int8" | "partial": dtype, or partials of a pass before
  of = "v" | "abs(v)": what is reduced of an element v, with a number p
  across = False | True: whether neighbours own neighbouring rows; else they read neighbouring elements of a row
  wide = False | True: whether, across, each owns four rows; inner is a multiple of four, and there are no partials in x
  final = True | False: whether there are results, not partials
  finish = "v" | "v * p": a result of the reduced number v, with a number p
  results = "first" | "second" | "both": of two results, such as the extreme and its index, which are wanted
  out = "float32" | "int32" | "bool": dtype of the first result
  second = "int32" | "float32": dtype of the second one
#}
{% set tensor = x != "partial" %}
{% set quads = tensor and (wide or not across) %}
{% set owned = 4 if wide else 1 %}
{% set by_quads = kind in ("lse", "var") and of == "v" %}
{% if x == "partial" %}
@group(0) @binding(0) var<storage, read> x: array<Partial>;
{% elif quads %}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_quad>;
{% else %}
@group(0) @binding(0) var<storage, read> x: array<{{ x }}_word>;
{% endif %}
{% if not final %}
@group(0) @binding(1) var<storage, read_write> out: array<Partial>;
{% elif results != "second" %}
@group(0) @binding(1) var<storage, read_write> out: array<{{ out }}_word>;
{% endif %}
{% if final and results != "first" %}
@group(0) @binding(2) var<storage, read_write> second: array<{{ second }}_word>;
{% endif %}
@group(0) @binding(3) var<uniform> params: Params;

struct Params {
  rows: u32,  // outer * inner
  length: u32,
  inner: u32,
  chunk: u32,  // elements of a chunk, a multiple of 4
  chunks: u32,
  lanes: u32,  // a power of two that divides wg_size
  p: f32,
  scale: f32,  // the p of `finish`
}

override wg_size: u32 = 256;

{% set words = {"sum": compute, "product": compute, "lse": "vec2<f32>", "var": "vec4<f32>"} %}
var<workgroup> partials: array<{{ words.get(kind, "vec2<u32>" if "est" in kind else "u32") }}, {{ owned }}u * wg_size>;

{% include "reduce/partial.wgsl" %}
{% include "wgsl/elements.wgsl" %}

{% if tensor %}
alias Native = {{ "f32" if "float" in x else "u32" if x == "bool" else "i32" }};

fn seen(v: Native, i: u32) -> Partial {
  let p = params.p;
  return partial_of(Number({{ of }}), i);
}
{% endif %}

fn four(a: Partial, b: Partial, c: Partial, d: Partial) -> Partial {
  return combine(combine(a, b), combine(c, d));
}

{% if wide %}
alias Found = array<Partial, 4>;  // of each row

fn quad_at(start: u32, i: u32) -> vec4<Native> {
  return unpack_{{ x }}(x[(start + i * params.inner) / 4u]);
}

// What elements begin..end of the four rows at `start` come to, of those that this lane reads, four loads at a time.
fn reduced(start: u32, begin: u32, end: u32, lane: u32) -> Found {
  let step = params.lanes;
  {% for c in "xyzw" %}
  var {{ c }}_row = nothing();
  {% endfor %}
  var i = begin + lane;
  for (; i + 3u * step < end; i += 4u * step) {
    {% for k in range(4) %}
    let v{{ k }} = quad_at(start, i + {{ k }}u * step);
    {% endfor %}
    {% for c in "xyzw" %}
    {% if by_quads %}
    {{ c }}_row = combine({{ c }}_row, partial_of_quad(vec4<f32>(vec4<Native>(v0.{{ c }}, v1.{{ c }}, v2.{{ c }}, v3.{{ c }}))));
    {% else %}
    {{ c }}_row = combine({{ c }}_row, four(
      {% for k in range(4) %}
      seen(v{{ k }}.{{ c }}, i + {{ k }}u * step){{ "," if k < 3 }}
      {% endfor %}
    ));
    {% endif %}
    {% endfor %}
  }
  for (; i < end; i += step) {
    let v = quad_at(start, i);
    {% for c in "xyzw" %}
    {{ c }}_row = combine({{ c }}_row, seen(v.{{ c }}, i));
    {% endfor %}
  }
  return Found(x_row, y_row, z_row, w_row);
}
{% elif quads %}
// The elements of a quad, whose first one is element i of its row.
fn whole(v: vec4<Native>, i: u32) -> Partial {
  {% if by_quads %}
  return partial_of_quad(vec4<f32>(v));
  {% else %}
  return four(seen(v.x, i), seen(v.y, i + 1u), seen(v.z, i + 2u), seen(v.w, i + 3u));
  {% endif %}
}

// Those of them that lie in first..past of x.
fn inside(v: vec4<Native>, quad: u32, start: u32, first: u32, past: u32) -> Partial {
  let at = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
  let counts = (at >= vec4<u32>(first)) & (at < vec4<u32>(past));
  let i = at - start;
  return four(
    {% for k in "xyzw" %}
    select(nothing(), seen(v.{{ k }}, i.{{ k }}), counts.{{ k }}){{ "," if k != "w" }}
    {% endfor %}
  );
}

{% set loads = 4 if x in ("uint8", "int8") else 2 %}
// What elements begin..end of the row at `start` come to, of those that this lane reads; inner is 1. Several loads are on
// their way, since those of narrow elements are small.
fn reduced(start: u32, begin: u32, end: u32, lane: u32) -> Partial {
  let first = start + begin;
  let past = start + end;
  var result = nothing();
  for (var quad = first / 4u + lane; quad * 4u < past; quad += {{ loads }}u * params.lanes) {
    {% for k in range(loads) %}
    let quad{{ k }} = quad + {{ k }}u * params.lanes;
    let v{{ k }} = unpack_{{ x }}(x[min(quad{{ k }}, (past - 1u) / 4u)]);
    {% endfor %}
    if (quad * 4u >= first && (quad{{ loads - 1 }} + 1u) * 4u <= past) {
      {% for k in range(loads) %}
      result = combine(result, whole(v{{ k }}, quad{{ k }} * 4u - start));
      {% endfor %}
    } else {
      {% for k in range(loads) %}
      result = combine(result, inside(v{{ k }}, quad{{ k }}, start, first, past));
      {% endfor %}
    }
  }
  return result;
}
{% else %}
fn loaded(start: u32, i: u32) -> Partial {
  let at = start + i * params.inner;
  {% if tensor %}
  return seen(element_{{ x }}(x[at / {{ x }}_per_word], at), i);
  {% else %}
  return x[at];
  {% endif %}
}

fn loaded_before(start: u32, i: u32, end: u32) -> Partial {
  return select(nothing(), loaded(start, min(i, end - 1u)), i < end);
}

// What elements begin..end of the row at `start` come to, of those that this lane reads. Four loads are on their way.
fn reduced(start: u32, begin: u32, end: u32, lane: u32) -> Partial {
  let step = params.lanes;
  var result = nothing();
  var i = begin + lane;
  for (; i + 3u * step < end; i += 4u * step) {
    result = combine(result, four(
      loaded(start, i), loaded(start, i + step), loaded(start, i + 2u * step), loaded(start, i + 3u * step)
    ));
  }
  if (i < end) {
    result = combine(result, four(
      loaded_before(start, i, end), loaded_before(start, i + step, end), loaded_before(start, i + 2u * step, end),
      loaded_before(start, i + 3u * step, end)
    ));
  }
  return result;
}
{% endif %}

@compute @workgroup_size(wg_size)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let block = group.x + group.y * groups.x;
  let chunk = block % params.chunks;
  let side_by_side = wg_size / params.lanes;
  {% if across %}
  let row = {{ owned }}u * (block / params.chunks * side_by_side + local % side_by_side);
  let lane = local / side_by_side;
  let stride = side_by_side;
  {% else %}
  let row = block / params.chunks * side_by_side + local / params.lanes;
  let lane = local % params.lanes;
  let stride = 1u;
  {% endif %}
  {% for c in range(owned) %}
  partials[{{ c }}u * wg_size + local] = nothing();
  {% endfor %}
  if (row < params.rows) {
    let start = row / params.inner * params.length * params.inner + row % params.inner;
    let begin = chunk * params.chunk;
    let found = reduced(start, begin, min(begin + params.chunk, params.length), lane);
    {% if wide %}
    {% for c in range(4) %}
    partials[{{ c }}u * wg_size + local] = found[{{ c }}];
    {% endfor %}
    {% else %}
    partials[local] = found;
    {% endif %}
  }
  workgroupBarrier();
  for (var half = params.lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      {% for c in range(owned) %}
      {% set mine = "%du * wg_size + local" % c if c else "local" %}
      partials[{{ mine }}] = combine(partials[{{ mine }}], partials[{{ mine }} + half * stride]);
      {% endfor %}
    }
    workgroupBarrier();
  }
  if (lane == 0u && row < params.rows) {
    {% for c in range(owned) %}
    {
      let partial = partials[{{ c }}u * wg_size + local];
      let to = row + {{ c }}u;
      {% if final %}
      {% if results != "second" %}
      let v = result_of(partial, params.p);
      let p = params.scale;
      out[to] = {{ out }}_word({{ finish }});
      {% endif %}
      {% if results != "first" %}
      second[to] = {{ second }}_word(second_of(partial));
      {% endif %}
      {% else %}
      out[to * params.chunks + chunk] = partial;
      {% endif %}
    }
    {% endfor %}
  }
}
