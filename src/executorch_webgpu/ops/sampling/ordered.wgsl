{#
Tokens as (rank of the logit, id), in the order of falling logits and, of equal ones, of rising ids.
#}
{% include "wgsl/float_order.wgsl" %}

const MOST = 20u;  // likeliest tokens that are told
const BEFORE_ALL = vec2<u32>(0xffffffffu, 0u);
const AFTER_ALL = vec2<u32>(0u, 0xffffffffu);  // also in place of tokens that there are not

fn comes_before(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}

var<workgroup> top: atomic<u32>;
var<workgroup> lowest: atomic<u32>;

// The first of the tokens that the invocations of a workgroup have, for all of them.
fn first_of_all(token: vec2<u32>, lane: u32) -> vec2<u32> {
  workgroupBarrier();
  if (lane == 0u) {
    atomicStore(&top, 0u);
    atomicStore(&lowest, 0xffffffffu);
  }
  workgroupBarrier();
  atomicMax(&top, token.x);
  workgroupBarrier();
  if (token.x == atomicLoad(&top)) {
    atomicMin(&lowest, token.y);
  }
  workgroupBarrier();
  return vec2<u32>(atomicLoad(&top), atomicLoad(&lowest));
}
