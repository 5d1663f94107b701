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
