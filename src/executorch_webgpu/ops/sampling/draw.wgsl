{#
How the token of a row is drawn, as the host packs it.
#}
struct Draw {
  seed: vec2<u32>,
  position: u32,
  kinds: u32,  // bits, among them IS_FILTERED and IS_MASKED
  temperature: f32,  // 0: the largest logit
  inverse_temperature: f32,
  margin: f32,  // of min-p
  top_k: u32,  // 0: all
  share: u32,  // top_p * 2^32, 0: all
  least_weight: u32,  // of what top-p can keep
  changes: vec2<u32>,  // the first change of logits, and the one after the last
  mask: u32,  // which mask
  likeliest: u32,  // 0: no log probabilities; else one more than how many of the likeliest tokens
}

const IS_FILTERED = 4u;
const IS_MASKED = 16u;

// Whether top-k, top-p or min-p choose among the tokens.
fn is_filtered(draw: Draw) -> bool {
  return (draw.kinds & IS_FILTERED) != 0u;
}
