  // The first values are on their way during the softmax.
  {{ declare_rows("v", value_unroll) | indent(2) }}
  {{ load_rows("v", value_unroll, "0u") | indent(2) }}

  let tile_rows = parts * {{ value_unroll }}u;
  // Softmax numerators of the chunk: zero where a row sees nothing, as far as the loaders of values read.
  partials[index] = largest;
  workgroupBarrier();
  if (own_row < ROWS && slot < 8u) {
    for (var i = slot + 8u; i < row_width; i += 8u) {
      largest = max(largest, partials[own_row * row_width + i]);
    }
    eighths[own_row * 8u + slot] = largest;
  }
  workgroupBarrier();
  if (own_row < ROWS) {
    for (var i = 0u; i < 8u; i++) {
      largest = max(largest, eighths[own_row * 8u + i]);
    }
    let end = (count + tile_rows - 1u) / tile_rows * tile_rows;
    var total = 0.0;
    for (var column = slot; column < end; column += row_width) {
      let at = own_row * score_columns + column;
      let weight = select(0.0, exp(scores[at] - largest), column < visible);
      scores[at] = weight;
      total += weight;
    }
    partials[index] = total;
  }
  workgroupBarrier();
  if (own_row < ROWS && slot < 8u) {
    var total = partials[index];
    for (var i = slot + 8u; i < row_width; i += 8u) {
      total += partials[own_row * row_width + i];
    }
    eighths[own_row * 8u + slot] = total;
  }
