"""A trace: what it records, that nothing is left of it afterwards, and that its clock is the host's."""

from __future__ import annotations

import dataclasses
import threading
from time import perf_counter_ns

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.clock import Anchor, GpuClock
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.profile import Timestamps
from executorch_webgpu.gpu.trace import HOST, Span, Track, active, spanned, trace


@spanned("double", "work", lambda x: (f"double {x}", {"x": x}))
def double(x: int) -> int:
    """Twice as much."""
    if x < 0:
        raise ValueError("negative")
    return 2 * x


def test_calls_are_spans_in_a_trace_only() -> None:
    assert double(1) == 2 and active() is None
    with trace() as recorded:
        assert active() is recorded
        assert double(2) == 4
    assert active() is None
    assert double(3) == 6
    (span,) = recorded.spans
    assert (span.name, span.kind, span.args, span.track.group) == ("double 2", "work", {"x": 2}, HOST)
    assert recorded.begin <= span.start <= span.end <= recorded.end


def test_a_call_that_raises_is_a_span_too_and_ends_no_trace() -> None:
    with trace() as recorded:
        with pytest.raises(ValueError, match="negative"):
            double(-1)
        double(1)
    assert [span.args for span in recorded.spans] == [{"x": -1, "error": "ValueError"}, {"x": 1}]


def test_nothing_is_left_when_the_block_raises() -> None:
    with pytest.raises(KeyError), trace() as recorded:
        double(1)
        raise KeyError
    assert active() is None and len(recorded.spans) == 1
    with trace() as second:
        double(2)
    assert len(recorded.spans) == 1 and len(second.spans) == 1


def test_one_at_a_time() -> None:
    with trace() as recorded:
        with pytest.raises(InvalidInputError, match="a trace is being made already"), trace():
            pass
        assert active() is recorded
        double(1)
    assert active() is None and len(recorded.spans) == 1


def test_threads_have_tracks_of_their_own() -> None:
    with trace() as recorded:
        threads = [threading.Thread(target=double, args=(i,), name=f"worker {i}") for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(span.track.name for span in recorded.spans) == ["worker 0", "worker 1", "worker 2"]
    assert len({span.track for span in recorded.spans}) == 3


def test_memory_is_bounded_and_what_is_left_out_is_said() -> None:
    with trace(most_spans=3) as recorded:
        for i in range(5):
            double(i)
    assert len(recorded.spans) == 3 and recorded.left_out == 2
    assert recorded.notes == ["2 spans were left out: a trace holds 3"]


def test_dispatches_that_are_not_read_yet_take_room(device: Device) -> None:
    with trace(device, most_spans=4) as recorded:
        recorded.expected += 4
        assert recorded.full
        double(1)
        recorded.expected -= 4
        double(2)
    assert [span.name for span in recorded.spans] == ["double 2"] and recorded.left_out == 1


def test_what_comes_after_the_end_changes_nothing(device: Device) -> None:
    with trace() as recorded:
        pass
    recorded.finish()
    recorded.at_end(lambda: recorded.add(Span(Track(HOST, "late"), "late", "late", 0, 0)))
    recorded.add(Span(Track(HOST, "late"), "late", "late", 0, 0))
    recorded.count("late", {"late": 1})
    recorded.finish()
    assert recorded.counters == []
    with device.lock:
        assert recorded.times_of(device) is None
    assert recorded.spans == []


def test_gpu_times_lie_between_submission_and_completion(device: Device) -> None:
    assert device.features.timestamps, "run these tests on an adapter with timestamps"
    timestamps = Timestamps(device, 64)
    with device.lock:
        first = Anchor.of(device, timestamps)
        bounds, ticks = [], []
        for _ in range(5):
            encoder = device.encoder()
            encoder.begin_compute_pass(timestamp_writes=timestamps.pass_descriptor(0)).end()
            timestamps.record(encoder, 1)
            commands = encoder.finish()
            before = perf_counter_ns()
            submission = device.submit([commands])
            ticks.append(timestamps.read(submission, 1)[0])
            bounds.append((before, perf_counter_ns()))
        last = Anchor.of(device, timestamps)
    timestamps.close()
    clock = GpuClock(first, last)
    on_host = clock.to_host(np.array(ticks))
    for (before, after), (begin, end) in zip(bounds, on_host.tolist(), strict=True):
        assert before - clock.uncertainty <= begin <= end <= after + clock.uncertainty
    assert np.all(np.diff(on_host.reshape(-1)) >= 0)


def test_a_clock_that_drifts() -> None:
    clock = GpuClock(Anchor(1_000, 90, 110), Anchor(2_000, 190, 230))
    assert clock.to_host(np.array([1_000, 1_500, 2_000])).tolist() == [1_100, 1_655, 2_210]
    assert clock.to_host(np.array([0, 3_000])).tolist() == [100, 3_210]  # outside, the difference stays
    assert clock.uncertainty == 20


def test_a_clock_that_is_measured_in_haste_does_not_drift_for_that() -> None:
    clock = GpuClock(Anchor(1_000, 90, 110), Anchor(2_000, 105, 145))
    begin, end = clock.to_host(np.array([1_000, 2_000])).tolist()
    assert end - begin == 1_001
    assert begin - 1_000 in range(90, 111) and end - 2_000 in range(105, 146)


def test_large_times_keep_their_nanoseconds() -> None:
    begin = 1_764_000_000_123_456_789  # more than a float holds
    clock = GpuClock(Anchor(begin, 5, 5), Anchor(begin + 10**9, 5, 5))
    assert clock.to_host(np.array([begin + 1, begin + 7])).tolist() == [begin + 6, begin + 12]


def test_a_device_without_timestamps_is_said_to_have_none(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "features", dataclasses.replace(device.features, timestamps=False))
    with trace(device) as recorded:
        pass
    (note,) = recorded.notes
    assert device.info.name in note and "only the host's side" in note
