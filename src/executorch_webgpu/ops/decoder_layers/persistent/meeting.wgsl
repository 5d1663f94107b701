{#
Where the workgroups of a dispatch meet, and how they leave it.
#}
// All that this workgroup has handed over is there before it arrives.
fn arrive(index: u32) {
  storageBarrier();
  workgroupBarrier();
  if (index == 0u) {
    atomicAdd(&work[ARRIVALS], 1u);
  }
}

// Whether `goal` arrivals came to pass.
fn meet(goal: u32, index: u32) -> bool {
  if (index == 0u) {
    for (var left = params.patience; left > 0u && atomicLoad(&work[ARRIVALS]) < goal; left--) {
      {% for _ in range(looks - 1) %}
      atomicOr(&work[ARRIVALS], 0u);
      {% endfor %}
    }
    answer = select(0u, 1u, atomicLoad(&work[ARRIVALS]) >= goal);  // a driver may end a loop that takes long
  }
  let met = workgroupUniformLoad(&answer) > 0u;
  storageBarrier();
  return met;
}

// The last workgroup to leave makes the counters ready for the next dispatch.
fn leave(groups: u32, index: u32, failed: bool) {
  if (failed) {
    for (var i = index; i < HIDDEN; i += SIZE) {
      out[i] = bitcast<f32>(0x7fc00000u | params.layers);
    }
  }
  if (index == 0u) {
    if (failed) {
      atomicStore(&work[FAILED], 1u);
    }
    if (atomicAdd(&work[DEPARTURES], 1u) + 1u == groups) {
      for (var i = 0u; i < KV_HEADS; i++) {
        atomicStore(&work[DONE_CHUNKS + i], 0u);
      }
      atomicStore(&work[ARRIVALS], 0u);
      atomicStore(&work[DEPARTURES], 0u);
    }
  }
}

