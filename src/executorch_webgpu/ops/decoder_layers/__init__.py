"""Decoder layers: what several calls of ``fused_linear`` and ``rope_sdpa_with_kv_cache`` compute, one after the other.

No operator and no pass states them. ``graph/decoder_layers.py`` finds such calls, and asks here whether one dispatch
can take their place for a single token.
"""
