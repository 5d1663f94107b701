{#
What workgroups of a dispatch hand over to each other. A word is a float whose lowest bit says in which layer it was written: in
an even or an odd one, counted over all dispatches. A word that has the other bit is not there yet.
#}
var<private> patience: u32;  // looks that are left
var<private> is_late: bool;  // whether a word did not come

fn hand_over(at: u32, value: f32, tag: u32) {
  let bits = bitcast<u32>(value);
  let even = bits + ((bits >> 1u) & 1u);  // rounded to what the other bits can hold; infinity and NaN stay
  let rounded = select(even, bits, (bits & 0x7f800000u) == 0x7f800000u);
  atomicStore(&work[at], (rounded & 0xfffffffeu) | (tag & 1u));
}

fn word_at(at: u32) -> u32 {
  {% if looks > 1 %}
  return atomicOr(&work[at], 0u);  // Mesa's CPU driver takes a load out of a loop
  {% else %}
  return atomicLoad(&work[at]);
  {% endif %}
}

fn value_of(word: u32) -> f32 {
  return bitcast<f32>(word & 0xfffffffeu);
}

fn give_up() {
  patience = 0u;
  is_late = true;
  atomicStore(&work[FAILED], 1u);
}

fn arrive(index: u32) {
  workgroupBarrier();
  if (index == 0u) {
    atomicAdd(&work[ARRIVALS], 1u);
  }
}

// Waits for `goal` arrivals. No value relies on them.
fn meet(goal: u32, index: u32) {
  if (index == 0u) {
    while (atomicLoad(&work[ARRIVALS]) < goal && patience > 0u) {
      patience--;
      {% for _ in range(looks - 1) %}
      atomicOr(&work[ARRIVALS], 0u);
      {% endfor %}
    }
    if (atomicLoad(&work[ARRIVALS]) < goal) {
      give_up();
    }
  }
  workgroupBarrier();
}

fn not_a_number() -> f32 {
  return bitcast<f32>(0x7fc00000u | params.layers);
}

// The last workgroup to leave makes the counters ready for the next dispatch.
fn leave(groups: u32, index: u32) {
  if (is_late) {
    out[0] = not_a_number();  // also where a driver that ends loops has ended that of the layers
  }
  if (index == 0u && atomicAdd(&work[DEPARTURES], 1u) + 1u == groups) {
    atomicStore(&work[ARRIVALS], 0u);
    atomicStore(&work[DEPARTURES], 0u);
    atomicAdd(&work[EPOCH], params.layers);
  }
}
