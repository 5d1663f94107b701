// Chunks of Q and K, [vec4 of D, row], for the scores; later values, [column, vec4 of D].
const DEPTH = {{ depth }}u;
const STAGE_STEP = {{ lanes * teams // depth }}u;
const Q_STRIDE = BR + 1u;
const K_STRIDE = BC + 1u;
const K_START = DEPTH * Q_STRIDE;
var<workgroup> stage: array<vec4<f32>, {{ stage_size }}u>;
