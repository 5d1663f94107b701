"""A slice of the differential test of programs. A long run: ``python -m tests.differential.programs --help``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .programs import described, save_verdict
from .programs_export import Flavour
from .programs_model import Call, Filled, Input, Line, Model, Source, Stored, source
from .programs_oracle import examine
from .programs_saved import read_saved, replay
from .programs_shrink import shrink
from .programs_strategy import Example, examples, seeded_example

# Of one seed, and what hypothesis draws is the same each time, too: the long run is what searches.
SEED, SEEDED, DRAWN = 11, 60, 25


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[str]]:
    """How many programs were right and so on; a slice in which little ran would show nothing."""
    found: Counter[str] = Counter()
    yield found


def check(example: Example, folder: Path, counts: Counter[str]) -> None:
    """Fail, and save a smaller program for replay, if a program is wrong."""
    verdict = examine(example.model, example.flavour)
    counts[verdict.kind] += 1
    if verdict.kind != "wrong":
        return
    last = [verdict]

    def fails(*smaller: object) -> bool:
        found = examine(*smaller)  # type: ignore[arg-type]
        if found.kind == "wrong":
            last[0] = found
        return found.kind == "wrong"

    small = Example(*shrink(example.model, example.flavour, fails))
    path = save_verdict(folder, "wrong", small, last[0])
    pytest.fail(f"{last[0].detail}\n{described(small)}replay: python -m tests.differential.replay {path.parent}")


def test_programs_of_one_seed(tmp_path: Path, counts: Counter[str]) -> None:
    for number in range(SEEDED):
        check(seeded_example(SEED, number), tmp_path, counts)
    assert counts["right"] >= SEEDED // 2, counts


def test_programs_that_hypothesis_draws(tmp_path_factory: pytest.TempPathFactory, counts: Counter[str]) -> None:
    @settings(
        max_examples=DRAWN,
        derandomize=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # ours makes them smaller in fewer exports
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples())
    def run(example: Example) -> None:
        check(example, tmp_path_factory.mktemp("programs"), counts)

    run()


def counter(lines: tuple[str, ...], returns: tuple[str, ...]) -> Model:
    """A model with one buffer, called three times."""
    stored = Stored("b0", "buffer", Filled("float32", (3, 4)), 1, written=True)
    method = Source("forward", (Input("x0", Filled("float32", (3, 4))),), tuple(map(Line, lines)), returns)
    return Model((stored,), (method,), tuple(Call(0, seed, 5) for seed in range(3)))


def test_saved_programs_replay(tmp_path: Path) -> None:
    example = Example(counter(("self.b0.add_(x0)",), ("self.b0 * 1", "x0 + 1")), Flavour(vulkan=True))
    verdict = examine(example.model, example.flavour)
    assert verdict.kind == "right", verdict
    saved = read_saved(save_verdict(tmp_path, "counter", example, verdict))
    assert len(saved.steps) == 3
    assert replay(saved) == ("right", "")
    saved.steps[2].outputs[0][1, 2] += 1
    assert replay(saved)[0] == "wrong"


def test_shrinking_keeps_what_fails() -> None:
    lines = ("v0 = x0 * 2", "v1 = v0 + self.b0", "self.b0.add_(x0)", "v2 = v1 - 1")
    targets = (("v0",), ("v1",), (), ("v2",))
    model = counter((), ("v2", "v1", "x0"))
    method = model.methods[0]
    numbered = tuple(Line(text, names) for text, names in zip(lines, targets, strict=True))
    model = Model(model.stored, (Source(method.name, method.inputs, numbered, method.returns),), model.calls)
    flavour = Flavour(vulkan=True)
    small, _ = shrink(model, flavour, lambda candidate, _: "add_" in source(candidate))
    assert [line.text for line in small.methods[0].lines] == ["self.b0.add_(x0)"]
    assert len(small.methods[0].returns) == 1
    assert len(small.calls) == 1
