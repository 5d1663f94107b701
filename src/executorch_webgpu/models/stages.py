"""A model in stages: methods over parts of its layers, each of which loads its own weights only, on a GPU of its own.

``stage0(tokens, input_pos) -> hidden``, ``stage1(hidden, input_pos) -> hidden`` …, the last one gives logits. Hidden is
float32 [1, S, dim].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from ..errors import InvalidInputError
from .builder import GraphBuilder
from .llama import LlamaConfig, LlamaOptions, build_llama
from .weights import Weight

Stages = int | Sequence[int]  # how many, or the number of layers of each


def build_stages(
    config: LlamaConfig, weights: Mapping[str, Weight], options: LlamaOptions, stages: Stages
) -> dict[str, GraphBuilder]:
    """The graphs of ``stages``, by the names of their methods; see ``build_llama``.

    A number of stages is cut so that the largest of them is as small as can be.
    Raises InvalidInputError unless every stage has a layer, and every layer a stage.
    """
    counts = _balanced(config, weights, options, stages) if isinstance(stages, int) else list(stages)
    if not counts or min(counts) < 1 or sum(counts) != config.layers:
        raise InvalidInputError(
            f"stages of {', '.join(map(str, counts)) or 'no'} layers cannot be made of the model's {config.layers}: "
            "each needs one, and all must be in one"
        )
    ends = list(accumulate(counts))
    parts = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
    return {f"stage{i}": build_llama(config, weights, options, part) for i, part in enumerate(parts)}


def _balanced(config: LlamaConfig, weights: Mapping[str, Weight], options: LlamaOptions, stages: int) -> list[int]:
    """How many layers each stage gets: the first one has the embedding, too, and the last one the head."""
    if not 1 <= stages <= config.layers:
        raise InvalidInputError(
            f"a model of {config.layers} layers cannot be in {stages} stages: choose 1 to {config.layers}"
        )
    if stages == 1:
        return [config.layers]

    def nbytes(layer: int) -> int:
        graph = build_llama(config, weights, options, range(layer, layer + 1))
        return sum(constant.nbytes for constant in graph.constants.values())

    each = nbytes(1) if config.layers > 2 else 0
    loads, counts = [nbytes(0), *[each] * (stages - 2), nbytes(config.layers - 1)], [1] * stages
    for _ in range(config.layers - stages):
        least = loads.index(min(loads))
        loads[least] += each
        counts[least] += 1
    return counts
