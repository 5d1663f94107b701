"""All benchmarks on one adapter, with few sizes or their default settings: python -m bench"""

from __future__ import annotations

from bench import bench_attention, bench_decode, bench_linear, bench_model

if __name__ == "__main__":
    bench_attention.main(["--quick"])
    bench_linear.main([])
    bench_model.main([])
    bench_decode.main([])
