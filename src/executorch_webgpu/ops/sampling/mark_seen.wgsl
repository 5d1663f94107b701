{#
The token that was drawn belongs to those that the text has. One invocation.
#}
@group(0) @binding(0) var<storage, read> out: array<i32>;  // [1]: a token, or -1
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;  // [vocab / 32]: a bit for each token

@compute @workgroup_size(1)
fn main() {
  if (out[0] >= 0) {
    let id = u32(out[0]);
    seen[id / 32u] |= 1u << (id % 32u);
  }
}
