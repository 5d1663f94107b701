{#
Eight sums over the lanes of a subgroup. In each step half of the values go to the other half of the lanes, so it takes 4 + 2 + 1
exchanges and one for each further step, where a sum for each would take eight a step.

Inputs:
  subgroup = 32 | 8: lanes of a subgroup, a power of two from 8 on
#}
const LANES_OF_SUM = {{ subgroup // 8 }}u;  // that have the same one

// Of the sums of `sum0` and `sum1` over all lanes, number lane / LANES_OF_SUM.
fn own_sum(sum0: vec4<f32>, sum1: vec4<f32>, lane: u32) -> f32 {
  let second = (lane & {{ subgroup // 2 }}u) != 0u;
  let four = select(sum0, sum1, second) + subgroupShuffleXor(select(sum1, sum0, second), {{ subgroup // 2 }}u);
  let upper = (lane & {{ subgroup // 4 }}u) != 0u;
  let two = select(four.xy, four.zw, upper) + subgroupShuffleXor(select(four.zw, four.xy, upper), {{ subgroup // 4 }}u);
  let odd = (lane & {{ subgroup // 8 }}u) != 0u;
  var one = select(two.x, two.y, odd) + subgroupShuffleXor(select(two.y, two.x, odd), {{ subgroup // 8 }}u);
  {% for bit in [64, 32, 16, 8, 4, 2, 1] if bit < subgroup // 8 %}
  one += subgroupShuffleXor(one, {{ bit }}u);
  {% endfor %}
  return one;
}
