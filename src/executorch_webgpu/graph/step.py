"""One submission to the device: inputs, the recorded dispatches of one graph or of several, and copies of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..gpu.buffers import Buffer, ScratchPool, UniformArena, upload
from ..gpu.device import Device
from ..gpu.mail import Mail
from ..gpu.replay import Pass, Replay
from ..gpu.trace import active
from ..ops.values import is_same
from .device_array import DeviceArray
from .resize import LivePlans
from .state import Command
from .timing import StepTimes
from .traced_step import TracedStep

_HELD_BYTES = 1 << 16  # of an input, at most
_LONG = 1 << 18  # workgroups of a step whose first dispatches the device gets while the others are recorded,
_EARLY = 16  # and how many these are
_MAIL_BYTES = 16 << 10  # of uniforms that change from step to step in one submission


@dataclass(slots=True)  # each step makes some: frozen ones take longer
class Part:
    """What one graph adds to a step: ``commands`` by call, the same as a ``replay``, and ``times`` when profiling.

    ``plans``: what the commands were made of.
    ``inputs``: ids, buffers, and what they are given. ``held``: small integer inputs as their buffers hold them, by id;
    they are not written again.
    ``checked`` runs the commands in the place of all that, call by call, each as soon as it is recorded.
    """

    inputs: Sequence[tuple[int, Buffer, np.ndarray | DeviceArray]]
    held: dict[int, np.ndarray]
    commands: Sequence[Sequence[Command]]
    replay: Replay
    plans: LivePlans
    uniforms: UniformArena
    scratch: ScratchPool
    times: StepTimes | None
    checked: Callable[[], None] | None = None

    def write_inputs(self, device: Device, encoder: Any) -> None:
        """Bring inputs to their buffers, by the queue or by copies in the raw encoder."""
        for id, buffer, given in self.inputs:
            before = self.held.get(id)
            if isinstance(given, DeviceArray):
                self.held.pop(id, None)
                given.copy_to(encoder, buffer)
            elif before is None or not is_same(before, given):
                upload(device, buffer, given)
                if given.dtype == np.int32 and given.nbytes <= _HELD_BYTES:
                    self.held[id] = given.copy()  # a caller may change its own
                else:
                    self.held.pop(id, None)

    @property
    def needs_queue(self) -> bool:
        """Whether it has inputs that the queue writes, which are there before all of a submission."""
        return any(
            not isinstance(given, DeviceArray) and ((before := self.held.get(id)) is None or not is_same(before, given))
            for id, _, given in self.inputs
        )

    @property
    def observed(self) -> bool:
        """Whether its calls are timed or checked."""
        return self.times is not None or self.checked is not None

    @property
    def timed(self) -> bool:
        """Whether the GPU tells the time of each call, which then has a pass of its own."""
        return self.checked is None and self.times is not None and self.times.by_gpu


class Step:
    """A step that is ready to be submitted; ``GraphExecutor.begin_step`` makes it.

    Plans, live uniforms and buffers between calls are set for this step, so the device's lock is held from there until
    it is submitted and its results are read. A step that is never submitted has run nothing; of a long one that is
    interrupted while it is submitted, the first dispatches may have run.
    """

    def __init__(self, device: Device, part: Part) -> None:
        self._device = device
        self._parts = [part]

    @property
    def parts(self) -> Sequence[Part]:
        return self._parts

    def append(self, other: Step) -> None:
        """Run the dispatches of ``other``, a step of another graph, after these: in the same pass and submission."""
        self._parts += other._parts

    def submit(self, *copies: Callable[[Any], None]) -> int:
        """Hand the step to the device, with the copies that each of ``copies`` records into the raw encoder.

        Does not wait, unless profiling or checked. Returns the number of the submission. Raises DeviceError, and
        DivergenceError where it is checked.
        """
        trace = active()
        traced = None if trace is None else TracedStep(trace, self._device, self._parts)
        try:
            return self._submit(copies, traced)
        finally:
            if traced is not None:
                traced.end()

    def _submit(self, copies: Sequence[Callable[[Any], None]], traced: TracedStep | None) -> int:
        encoder = self._device.encoder()
        for part in self._parts:
            part.uniforms.flush()
            part.write_inputs(self._device, encoder)
        for checked, parts in groupby(self._parts, lambda part: part.checked):
            if checked is None:
                encoder = self._record(encoder, list(parts), traced)
                continue
            self._device.submit([encoder.finish()])
            checked()
            encoder = self._device.encoder()
        with self._device.errors("recording a step"):  # what is wrong in a pass is only said when it is finished
            for copy in copies:
                copy(encoder)
            if traced is not None:
                traced.record(encoder)
            commands = encoder.finish()
        submission = self._device.submit([commands]) if traced is None else traced.submit(commands)
        for part in self._parts:
            part.scratch.release_retired()
            if part.times is not None:
                part.times.count(part.commands, None if traced is None else traced.nanoseconds(part))
        return submission

    def _record(self, encoder: Any, parts: Sequence[Part], traced: TracedStep | None) -> Any:
        """The dispatches of parts that follow one another.  Returns the encoder to go on with."""
        with self._device.errors("recording a step"):
            if traced is not None and traced.timed:
                traced.encode(encoder, parts)
                return encoder
            for timed, alike in groupby(parts, lambda part: part.timed):
                if timed:
                    for part in alike:
                        assert part.times is not None
                        part.times.encode(encoder, part.commands)
                else:
                    begun = 0
                    replays = [part.replay for part in alike]
                    if traced is None and replays[0].workgroups >= _LONG and len(replays[0]) > _EARLY:
                        begun = _EARLY
                        encoder = self._hand_over(encoder, replays[0])
                    compute_pass = Pass(self._device, encoder)
                    for replay in replays:
                        replay.encode(compute_pass, begun)
                        begun = 0
                    compute_pass.end()
        return encoder

    def _hand_over(self, encoder: Any, replay: Replay) -> Any:
        """Submit what is recorded and the first dispatches of a long step.  Returns another encoder."""
        compute_pass = Pass(self._device, encoder)
        replay.encode(compute_pass, 0, _EARLY)
        compute_pass.end()
        self._device.submit([encoder.finish()])
        return self._device.encoder()


class Steps:
    """Steps of the same graphs in one submission, each of which finds what those before it have left.

    Like a step, they are begun and submitted while the device's lock is held. Where the queue has to write between two
    of them, there are more submissions than one.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._mail = Mail(device, _MAIL_BYTES)
        self._encoder: Any = None  # has steps that are not submitted
        self._parts: list[Part] = []
        self._submission = 0

    def add(self, step: Step, *copies: Callable[[Any], None]) -> None:
        """Record a step, with copies as ``Step.submit`` takes them, before the next one is begun."""
        if any(part.observed for part in step.parts):
            self.submit()
            self._submission = step.submit(*copies)
            return
        if self._encoder is not None and not self._follows(step):
            self.submit()
        if self._encoder is None:
            self._encoder = self._device.encoder()
            for part in step.parts:
                part.uniforms.flush()
        self._parts += step.parts
        with self._device.errors("recording a step"):
            for part in step.parts:
                part.write_inputs(self._device, self._encoder)
            compute_pass = Pass(self._device, self._encoder)
            for part in step.parts:
                part.replay.encode(compute_pass)
            compute_pass.end()
            for copy in copies:
                copy(self._encoder)

    def _follows(self, step: Step) -> bool:
        """Whether a step needs nothing of the queue; its uniforms are then on their way."""
        if any(part.needs_queue for part in step.parts):
            return False
        with self._device.errors("recording a step"):
            return all(part.uniforms.record(self._encoder, self._mail) for part in step.parts)

    def submit(self) -> int:
        """Hand what was recorded to the device; does not wait.  Returns the number of the last submission."""
        encoder, self._encoder = self._encoder, None
        parts, self._parts = self._parts, []
        if encoder is None:
            return self._submission
        try:
            self._mail.send()
            with self._device.errors("recording a step"):
                commands = encoder.finish()
            self._submission = self._device.submit([commands])
        except BaseException:
            for part in parts:
                part.uniforms.send_again()
            raise
        for part in parts:
            part.scratch.release_retired()
        return self._submission

    def discard(self) -> None:
        """Forget a first step whose recording failed."""
        self._encoder = None
        self._parts.clear()

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self._mail.close()
