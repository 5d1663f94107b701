{#
Which rows of a step go together: spans of consecutive rows of one sequence, and single rows.

A run of rows at consecutive positions of one sequence is cut into spans of up to SPAN rows, unless it has fewer than
LEAST rows, which are single ones then.
The list begins with how many single rows and spans there are, and with its last place. Single rows follow, each with
its position, sequence and row. Spans begin at the list's end and go backwards: position, sequence and row of the first of
their rows, and how many there are. The order of each kind may be any.

One workgroup does all. A bit for each row, in workgroup memory, says whether a run begins there.
#}
@group(0) @binding(0) var<storage, read> places: array<vec2<i32>>;     // [rows]: position, sequence
@group(0) @binding(1) var<storage, read_write> list: array<vec4<i32>>;

struct Params {
  rows: u32,
  span: u32,   // the most rows of a span
  least: u32,  // the fewest rows of a run that is cut into spans
  last: u32,   // the entry of the list where spans begin
}
@group(0) @binding(2) var<uniform> params: Params;

override wg_size: u32 = 256;
override words: u32 = 9;  // more than rows / 32

var<workgroup> begins: array<atomic<u32>, words>;
var<workgroup> singles: atomic<u32>;
var<workgroup> span_count: atomic<u32>;

fn begins_run(row: u32) -> bool {
  if (row == 0u || row == params.rows) {
    return true;
  }
  let place = places[row];
  let before = places[row - 1u];
  return place.y != before.y || place.x != before.x + 1;
}

// The last row up to this one where a run begins.
fn run_start(row: u32) -> u32 {
  var word = row / 32u;
  var bits = atomicLoad(&begins[word]) & (0xffffffffu >> (31u - row % 32u));
  while (bits == 0u) {  // row 0 begins one
    word--;
    bits = atomicLoad(&begins[word]);
  }
  return word * 32u + firstLeadingBit(bits);
}

// The first row from this one on where a run begins, or where rows end.
fn run_end(row: u32) -> u32 {
  var word = row / 32u;
  var bits = atomicLoad(&begins[word]) & (0xffffffffu << (row % 32u));
  while (bits == 0u) {
    word++;
    bits = atomicLoad(&begins[word]);
  }
  return word * 32u + firstTrailingBit(bits);
}

@compute @workgroup_size(wg_size)
fn main(@builtin(local_invocation_index) index: u32) {
  for (var word = index; word < words; word += wg_size) {
    atomicStore(&begins[word], 0u);
  }
  if (index == 0u) {
    atomicStore(&singles, 0u);
    atomicStore(&span_count, 0u);
  }
  workgroupBarrier();
  for (var row = index; row <= params.rows; row += wg_size) {
    if (begins_run(row)) {
      atomicOr(&begins[row / 32u], 1u << (row % 32u));
    }
  }
  workgroupBarrier();
  for (var row = index; row < params.rows; row += wg_size) {
    let start = run_start(row);
    let end = run_end(row + 1u);
    if (end - start < params.least) {
      list[1u + atomicAdd(&singles, 1u)] = vec4<i32>(places[row], i32(row), 1);
    } else if ((row - start) % params.span == 0u) {
      let count = min(params.span, end - row);
      list[params.last - atomicAdd(&span_count, 1u)] = vec4<i32>(places[row], i32(row), i32(count));
    }
  }
  workgroupBarrier();
  if (index == 0u) {
    list[0] = vec4<i32>(i32(atomicLoad(&singles)), i32(atomicLoad(&span_count)), i32(params.last), 0);
  }
}
